"""From the registers of an enabled operation to the emulator's operation, by way of the firmware's descriptors.

Registers hold what the firmware makes of descriptors (`nvdla_quant.registers.places`), so they are read back into
descriptors, with fields wide enough for addresses, and decoded and checked by the code that decodes loadables.
"""
