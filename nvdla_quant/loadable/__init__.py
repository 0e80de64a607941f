"""The `.nvdla` loadable: its flatbuffer, the firmware's descriptors in it, reading, writing, describing."""
