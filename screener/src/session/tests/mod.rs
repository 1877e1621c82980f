//! The engine's behaviour, with a virtual clock and no socket.

mod behaviour;
mod properties;
mod rig;
mod start_tls;
