"""Memory by address, and copies."""

MEMORY = {}


def mem_alloc(size):
    address = 4096 * (len(MEMORY) + 1)
    MEMORY[address] = bytearray(size)
    return address


def memcpy_htod(address, array):
    assert array.flags.c_contiguous
    assert array.nbytes == len(MEMORY[address])
    MEMORY[address][:] = array.tobytes()


def memcpy_dtoh(array, address):
    array.view("u1").reshape(-1)[:] = memoryview(MEMORY[address])
