"""What jobs need of the machine: files, logs, programs, downloads, provenance."""
