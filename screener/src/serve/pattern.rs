//! A pattern for host names, as an operator writes it.
//!
//! Holds the matching. Never takes longer than the two lengths multiplied.

/// `mail*.example.com`, or `example.com` for that name and all below it.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: Vec<u8>,
    is_glob: bool,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let text = text.trim_end_matches('.').to_ascii_lowercase().into_bytes();
        let is_glob = text.iter().any(|byte| b"*?".contains(byte));
        Self { text, is_glob }
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let name = name.as_bytes();
        if self.is_glob {
            return globs(&self.text, name);
        }
        let Some(before) = name.strip_suffix(&self.text[..]) else { return false };
        before.is_empty() || before.ends_with(b".") || self.text.starts_with(b".")
    }
}

/// `*`: any number of bytes; `?`: one.
fn globs(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the last star stands, and how much of the name it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((place, swallowed)) => {
                    star = Some((place, swallowed + 1));
                    (at, read) = (place + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_met_by_its_end_or_by_stars() {
        for (pattern, name, fits) in [
            ("example.com", "mail.example.com", true),
            ("Example.com.", "EXAMPLE.COM", true),
            ("example.com", "badexample.com", false),
            (".example.com", "example.com", false),
            (".example.com", "a.b.example.com", true),
            ("mail*.example.com", "mail17.example.com", true),
            ("mail*.example.com", "smtp.example.com", false),
            ("*.example.*", "a.example.net", true),
            ("mail?", "mail1", true),
            ("mail?", "mail", false),
            ("*", "", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("[192.0.2.1]", "[192.0.2.1]", true),
        ] {
            assert_eq!(Pattern::new(pattern).fits(name), fits, "{pattern} and {name}");
        }
    }

    #[test]
    fn many_stars_cost_little() {
        let name = "a".repeat(250);
        assert!(!Pattern::new(&("*a".repeat(120) + "b")).fits(&name));
    }
}
