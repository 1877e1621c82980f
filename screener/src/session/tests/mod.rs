//! The engine's behaviour, with a virtual clock and no socket.

mod behaviour;
mod deep;
mod defer;
mod limits;
mod link;
mod properties;
mod replies;
mod rig;
mod simulation;
mod start_tls;
mod tarpit;
