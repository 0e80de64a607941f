"""Where loadables run: the emulator and the real runtimes, behind one interface."""
