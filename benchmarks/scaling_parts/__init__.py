"""What scaling.py runs in processes of their own."""
