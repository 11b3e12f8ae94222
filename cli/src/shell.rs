//! `completions` and `man`: the command line's interface, for shells and for `man`.

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Failure, Outcome, command, print};

#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn execute(&self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "gpuconv", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}

#[derive(Args)]
pub struct Manual {
    /// The command that the page describes; without it, the page describes all of gpuconv
    command: Option<String>,
}

impl Manual {
    pub fn execute(&self) -> Outcome {
        let cli = command();
        let page = match &self.command {
            None => Man::new(cli),
            Some(name) => match cli.find_subcommand(name) {
                Some(command) => Man::new(command.clone()),
                None => return Err(Failure::Call(format!("there is no command `{name}`"))),
            },
        };
        // Only the whole has a version.
        let page = page.source(concat!("gpuconv ", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        page.render(&mut text).map_err(|error| Failure::Call(error.to_string()))?;
        print(&String::from_utf8_lossy(&text))
    }
}
