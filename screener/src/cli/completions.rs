//! `screener completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Answer, Cli};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn carry_out(self) -> anyhow::Result<Answer> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "screener", &mut script);
        std::io::Write::write_all(&mut std::io::stdout(), &script)?;
        Ok(Answer::Yes)
    }
}
