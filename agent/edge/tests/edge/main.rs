//! The edge over real sockets on loopback, with tiny instances. One binary, so that it is linked once.

mod drain;
mod hostile;
mod instance;
mod protocol;
mod rig;
mod survive;
mod trouble;
