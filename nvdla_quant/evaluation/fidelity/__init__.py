"""How far the outputs of a loadable lie from fp32's, where no label says what is right."""
