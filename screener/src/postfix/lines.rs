//! The logical lines of Postfix's files: comments and empty lines go, what begins with white space goes on.

/// A logical line and the number of the line it begins in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Logical {
    pub(super) number: usize,
    pub(super) text: String,
}

/// All of them. A file that begins with white space begins with nothing, as for Postfix.
pub(super) fn logical(text: &str) -> Vec<Logical> {
    let mut lines: Vec<Logical> = Vec::new();
    let mut lost = false;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let goes_on = trimmed.len() < line.len();
        match lines.last_mut() {
            Some(last) if goes_on && !lost => last.text.push_str(line),
            // Nothing is there that could go on.
            _ if goes_on => lost = true,
            _ => {
                lost = false;
                lines.push(Logical { number: at + 1, text: line.to_owned() });
            }
        }
    }
    lines
}

/// Words between blanks and commas; what stands in braces stays together.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut depth) = (None, 0_usize);
    for (at, letter) in text.char_indices() {
        let separates = depth == 0 && (letter.is_whitespace() || letter == ',');
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !separates {
            start.get_or_insert(at);
        } else if let Some(start) = start.take() {
            words.push(&text[start..at]);
        }
    }
    words.extend(start.map(|start| &text[start..]));
    words
}
