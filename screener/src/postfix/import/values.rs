//! Postfix's values of settings that have the same meaning here, in our words.

use super::draft::quoted;

/// What a parameter's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `ignore`, `enforce`, `drop`.
    Action,
    /// `yes` and `no`.
    Switch,
    Number,
    /// A time; a number without a unit is in this one.
    Time(char),
    Text,
}

impl Kind {
    /// A value as TOML.
    ///
    /// # Errors
    /// If it is none: Postfix would not start with it either.
    pub(super) fn written(self, value: &str) -> Result<String, String> {
        let word = value.to_ascii_lowercase();
        match self {
            Self::Action => match word.as_str() {
                "ignore" | "continue" => Ok(quoted("ignore")),
                "enforce" | "drop" => Ok(quoted(&word)),
                _ => Err("is none of ignore, enforce and drop".to_owned()),
            },
            Self::Switch => switch(value).map(|on| on.to_string()),
            Self::Number => number(value).map(|number| number.to_string()),
            Self::Time(unit) => {
                let (number, unit) = time(value, unit)?;
                Ok(quoted(&format!("{number}{unit}")))
            }
            Self::Text => Ok(quoted(value)),
        }
    }
}

/// Whether a switch is on.
pub(super) fn switch(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("is neither yes nor no".to_owned()),
    }
}

pub(super) fn number(value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| "is no number".to_owned())
}

/// A time as its number and its unit. Postfix knows no others.
fn time(value: &str, default: char) -> Result<(u32, char), String> {
    let digits = value.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" => default,
        "s" => 's',
        "m" => 'm',
        "h" => 'h',
        "d" => 'd',
        "w" => 'w',
        _ => return Err("is no time: write a number and one of s, m, h, d, w".to_owned()),
    };
    let number = digits.parse().map_err(|_| "is no time: write a number and one of s, m, h, d, w".to_owned())?;
    Ok((number, unit))
}

/// A time in seconds.
pub(super) fn seconds(value: &str, default: char) -> Result<u64, String> {
    let (number, unit) = time(value, default)?;
    let unit = match unit {
        'w' => 7 * 86_400,
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        _ => 1,
    };
    Ok(u64::from(number) * unit)
}
