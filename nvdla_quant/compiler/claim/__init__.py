"""The claim: what the compiler says that each operation of its loadable stands for."""
