"""Golden nets: what rayprune computes, says and writes today, so that nothing changes unnoticed.

Each test compares what it finds with a file beside it. To write the files anew, after a change
that is meant (the CHANGELOG says so then)::

    RAYPRUNE_GOLDEN_WRITE=1 RAYPRUNE_GOLDEN_BITS=1 pytest tests/golden

Masks, texts and keys are compared exactly. Floats may differ between CPUs in their last bits, so
they are compared with a tolerance. ``RAYPRUNE_GOLDEN_BITS=1`` compares all bits too, which holds
on the machine, and with the torch, that wrote the files.
"""
