//! What has a name in commands, in the configuration and in JSON, found by it.

/// The one that is called so.
///
/// # Errors
/// With the names there are.
pub fn find<T: Copy, const N: usize>(all: [T; N], name: fn(T) -> &'static str, word: &str) -> Result<T, String> {
    all.into_iter().find(|&one| name(one) == word).ok_or_else(|| all.map(name).join(", "))
}
