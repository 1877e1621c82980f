//! `$name` in Postfix's values, as its own `mac_expand` does it: `$name`, `${name}`, `$(name)`, `${name?text}`, `${name:text}`,
//! `${name?{text}:{text}}`, and comparisons (`${{$name} == {text} ? {text} : {text}}`).
//!
//! Holds the expansion. Whose value a name has is asked of the caller.

/// How deep values may lead to each other; Postfix stops there too.
const DEEPEST: usize = 100;
/// How many names may be looked up for one value: values that lead to two others each are not without end, but as good as that.
const MOST: usize = 10_000;

/// What is wrong with a value.
pub(super) type Fault = String;

/// Expands a value, and the values of the names in it. `lookup` gives the value of a name; `None`: it has none.
///
/// # Errors
/// If Postfix would refuse it.
pub(super) fn expand(text: &str, lookup: &mut dyn FnMut(&str) -> Option<String>) -> Result<String, Fault> {
    let mut done = String::new();
    Expansion { lookup, depth: 0, looked_up: 0 }.text(text, &mut done)?;
    Ok(done)
}

struct Expansion<'a> {
    lookup: &'a mut dyn FnMut(&str) -> Option<String>,
    depth: usize,
    looked_up: usize,
}

impl Expansion<'_> {
    fn text(&mut self, text: &str, done: &mut String) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("the values lead to each other without end".to_owned());
        }
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            done.push_str(before);
            let (expression, behind) = match behind.chars().next() {
                Some('$') => {
                    done.push('$');
                    rest = &behind[1..];
                    continue;
                }
                Some('{') => balanced(behind, '{', '}').ok_or_else(|| format!("'{text}': a brace is not closed"))?,
                Some('(') => balanced(behind, '(', ')').ok_or_else(|| format!("'{text}': a bracket is not closed"))?,
                _ => behind.split_at(behind.find(|letter| !of_name(letter)).unwrap_or(behind.len())),
            };
            if expression.is_empty() {
                return Err(format!("'{text}': behind a $ must stand a name, and a $ itself is written as $$"));
            }
            self.expression(expression, done)?;
            rest = behind;
        }
        done.push_str(rest);
        self.depth -= 1;
        Ok(())
    }

    /// What stands between the braces.
    fn expression(&mut self, text: &str, done: &mut String) -> Result<(), Fault> {
        self.looked_up += 1;
        if self.looked_up > MOST {
            return Err(format!("the values lead to more than {MOST} others"));
        }
        let unclear = || format!("'${{{text}}}' is not understood");
        let start = text.trim_start();
        let (value, rest) = if start.starts_with('{') {
            let (truth, rest) = self.comparison(start).ok_or_else(unclear)??;
            (Some(if truth { "true".to_owned() } else { String::new() }), rest)
        } else {
            let (name, rest) = start.split_at(start.find(|letter| !of_name(letter)).unwrap_or(start.len()));
            ((self.lookup)(name), rest.trim_start())
        };
        let is_there = value.as_ref().is_some_and(|value| !value.is_empty());
        let Some(sign) = rest.chars().next() else {
            return self.text(&value.unwrap_or_default(), done);
        };
        if sign != '?' && sign != ':' {
            return Err(unclear());
        }
        let mut rest = &rest[1..];
        if sign == '?' {
            let (text, behind) = operand(rest).ok_or_else(unclear)?;
            if is_there {
                self.text(text, done)?;
            }
            rest = match behind.strip_prefix(':') {
                Some(rest) => rest,
                None if behind.is_empty() => return Ok(()),
                None => return Err(unclear()),
            };
        }
        let (text, behind) = operand(rest).ok_or_else(unclear)?;
        if !is_there {
            self.text(text, done)?;
        }
        if behind.is_empty() { Ok(()) } else { Err(unclear()) }
    }

    /// `{left} == {right}`, and what follows; `None`: it is none.
    fn comparison<'t>(&mut self, text: &'t str) -> Option<Result<(bool, &'t str), Fault>> {
        let (left, rest) = balanced(text, '{', '}')?;
        let rest = rest.trim_start();
        let (sign, rest) = rest.split_at(rest.find(|letter| !"<>!=".contains(letter))?);
        // `<level` and its like compare versions of Postfix's compatibility.
        let (suffix, rest) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_alphanumeric())?);
        let (right, rest) = balanced(rest.trim_start(), '{', '}')?;
        let mut both = [String::new(), String::new()];
        for (text, done) in [left, right].into_iter().zip(&mut both) {
            if let Err(fault) = self.text(text, done) {
                return Some(Err(fault));
            }
        }
        let [left, right] = both;
        let order = match suffix {
            "" => compare(&left, &right)?,
            "level" => level(&left)?.cmp(&level(&right)?),
            _ => return None,
        };
        let truth = match sign {
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">=" => order.is_ge(),
            ">" => order.is_gt(),
            _ => return None,
        };
        Some(Ok((truth, rest.trim_start())))
    }
}

fn of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// What stands between a bracket, which the text begins with, and the one that closes it; and what follows.
fn balanced(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        if letter == open {
            depth += 1;
        } else if letter == close {
            depth -= 1;
            if depth == 0 {
                return Some((&text[1..at], &text[at + 1..]));
            }
        }
    }
    None
}

/// `{text}` with what follows, or else everything.
fn operand(text: &str) -> Option<(&str, &str)> {
    let trimmed = text.trim_start();
    if !trimmed.starts_with('{') {
        return Some((text, ""));
    }
    let (inner, rest) = balanced(trimmed, '{', '}')?;
    Some((inner.trim(), rest.trim_start()))
}

fn compare(left: &str, right: &str) -> Option<std::cmp::Ordering> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(left) && digits(right) {
        return Some(left.parse::<u64>().ok()?.cmp(&right.parse::<u64>().ok()?));
    }
    Some(left.cmp(right))
}

/// `3.6` as its numbers.
fn level(text: &str) -> Option<Vec<u32>> {
    let mut numbers = text.trim().split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()?;
    numbers.resize(3, 0);
    Some(numbers)
}
