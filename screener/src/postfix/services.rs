//! `master.cf`: which services there are, and what their lines override.

use super::lines::{logical, words};

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name: for `inet` a port, or an address and a port.
    pub name: String,
    /// `inet`, `unix`, `pass`, ….
    pub kind: String,
    /// Whether its socket stands in the private directory.
    pub is_private: bool,
    /// The program.
    pub program: String,
    /// Its `-o` options.
    pub options: Vec<(String, String)>,
}

/// All services.
///
/// # Errors
/// If a line is none: Postfix would not start.
pub fn read(text: &str, name: &str) -> Result<Vec<Service>, String> {
    logical(text)
        .into_iter()
        .map(|line| service(&line.text).map_err(|why| format!("{name}:{}: {why}", line.number)))
        .collect()
}

fn service(line: &str) -> Result<Service, String> {
    // Commas separate nothing before the arguments.
    let mut fields = line.split_whitespace();
    let mut next = || fields.next().map(str::to_owned);
    let [Some(name), Some(kind), Some(private), Some(_), Some(_), Some(_), Some(_), Some(program)] =
        std::array::from_fn(|_| next())
    else {
        return Err(
            "a service has eight columns, and Postfix would not start with this line: run `postfix check`".to_owned()
        );
    };
    let mut options = Vec::new();
    let arguments = arguments(line);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let given = match argument.strip_prefix("-o") {
            Some("") => arguments.next().map(String::as_str),
            other => other,
        };
        if let Some((name, value)) = given.and_then(|given| given.split_once('=')) {
            options.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    // By default a socket is private, but one of inet.
    let is_private = private == "y" || (private == "-" && kind != "inet");
    Ok(Service { name, kind, is_private, program, options })
}

/// What stands behind the eight columns; `{ … }` is one, without the braces.
fn arguments(line: &str) -> Vec<String> {
    let mut rest = line.trim_start();
    for _ in 0..8 {
        rest = rest.trim_start_matches(|letter: char| !letter.is_whitespace()).trim_start();
    }
    // A comma is a part of an argument.
    let kept = rest.replace(',', "\u{1}");
    words(&kept)
        .into_iter()
        .map(|word| {
            let word = word.replace('\u{1}', ",");
            match word.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
                Some(inner) => inner.trim().to_owned(),
                None => word,
            }
        })
        .collect()
}
