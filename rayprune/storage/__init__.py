"""Results on object stores: URLs, all-or-nothing commits, and local copies of what is there.

`rayprune.storage.copies` is what the rest of rayprune uses: a run works in a local directory, and
commits it. Nothing here knows what a run is.
"""
