//! `screener kernel attach`

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Answer, output};
use crate::config::{Config, InterfaceName, Mode, XdpMode};
use crate::kernel::{self, Kernel};
use crate::serve;

#[derive(Debug, Args)]
pub(in crate::cli) struct Attach {
    /// The configuration; without it /etc/screener/screener.toml, and defaults if that does not exist
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An interface, in place of `kernel.interfaces`; may be given more than once
    #[arg(long, value_name = "NAME")]
    interface: Vec<InterfaceName>,
    /// auto, native, generic or off, in place of `kernel.xdp`
    #[arg(long, value_name = "MODE", value_parser = xdp_mode)]
    xdp: Option<XdpMode>,
    /// A screened port, in place of `kernel.ports`; may be given more than once
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// The pin directory, in place of `kernel.pin`
    #[arg(long, value_name = "DIR")]
    pin: Option<PathBuf>,
}

impl Attach {
    /// Attaches what the configuration asks for. The maps stay as they are, and the daemon's listeners are not there: what
    /// is denied is dropped or refused, everybody else reaches the MTA.
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::load_default()?,
        };
        self.apply(&mut config);
        let options = serve::kernel_options(&config, config.listen.mode != Mode::Front);
        if options.interfaces.is_empty() && options.xdp != kernel::XdpPolicy::Off {
            eprintln!("screener: {}", serve::NONE);
        }
        let kernel = Kernel::start(&options)?;
        let status = kernel.status()?;
        for interface in &status.interfaces {
            output::line(super::status::interface_line(interface))?;
        }
        output::line(super::status::steer_line(&status.steer))?;
        for sentence in &status.degraded {
            eprintln!("screener: {sentence}");
        }
        Ok(if status.attached { Answer::Yes } else { Answer::No })
    }

    fn apply(self, config: &mut Config) {
        let kernel = &mut config.kernel;
        if !self.interface.is_empty() {
            kernel.interfaces = self.interface;
        }
        if !self.port.is_empty() {
            kernel.ports = self.port;
        }
        kernel.xdp = self.xdp.unwrap_or(kernel.xdp);
        if let Some(pin) = self.pin {
            kernel.pin = pin;
        }
    }
}

fn xdp_mode(word: &str) -> Result<XdpMode, &'static str> {
    let modes = [XdpMode::Auto, XdpMode::Native, XdpMode::Generic, XdpMode::Off];
    modes.into_iter().find(|mode| mode.name() == word).ok_or("use auto, native, generic or off")
}
