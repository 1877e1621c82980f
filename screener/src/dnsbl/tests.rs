//! Lists against servers: a real rbldnsd, and a scripted one for what a real one cannot be made to do.

use super::*;
