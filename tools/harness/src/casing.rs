//! How the values of closed lists are written (ADR 20), for the tests that check it.

/// Whether the name is `snake_case`.
#[must_use]
pub fn is_snake(name: &str) -> bool {
    has_words(name, '_', u8::is_ascii_lowercase)
}

/// Whether the name is `SCREAMING_SNAKE_CASE`.
#[must_use]
pub fn is_screaming(name: &str) -> bool {
    has_words(name, '_', u8::is_ascii_uppercase)
}

/// Whether the name is `kebab-case`.
#[must_use]
pub fn is_kebab(name: &str) -> bool {
    has_words(name, '-', u8::is_ascii_lowercase)
}

/// Whether the name is two names in `snake_case`, with this between them.
#[must_use]
pub fn is_pair(name: &str, between: char) -> bool {
    name.split_once(between).is_some_and(|(first, second)| is_snake(first) && is_snake(second))
}

fn has_words(name: &str, between: char, letter: fn(&u8) -> bool) -> bool {
    name.split(between).all(|word| !word.is_empty() && word.as_bytes().iter().all(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_casing_is_recognized() {
        assert!(is_snake("in_review") && is_snake("ready") && is_screaming("COMPENSATING"));
        assert!(is_kebab("token-expiring") && is_pair("config:read", ':') && is_pair("api_key.created", '.'));
        for wrong in ["", "_", "a_", "inReview", "in-review", "IN_REVIEW", "in review"] {
            assert!(!is_snake(wrong), "{wrong}");
        }
        assert!(!is_screaming("Done") && !is_kebab("token_expiring") && !is_pair("config", ':'));
    }
}
