//! In-band bytestreams between two machines, and the simulator of what is between them.
