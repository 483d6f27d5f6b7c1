"""Google Cloud on this machine: emulators, and the demo on them."""
