"""The pure-torch core of rayprune: masks for any ``nn.Module``. It never imports ray."""
