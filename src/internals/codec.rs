//! The codec of the e2e stream, alone.
