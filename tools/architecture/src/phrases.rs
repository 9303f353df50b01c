//! Phrases that the texts of this project do without, found across line ends and comment marks.

/// A phrase, and what to say instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Phrase {
    /// In lower case, words with one space between them.
    pub words: String,
    /// Advice for the author.
    pub instead: String,
}

/// Reads the list: one phrase a line, `phrase -> what to say instead`; `#` begins a comment.
///
/// # Errors
/// When a line has no arrow.
pub fn parse(list: &str) -> anyhow::Result<Vec<Phrase>> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (words, instead) =
                line.split_once("->").ok_or_else(|| anyhow::anyhow!("no arrow in this line: {line}"))?;
            Ok(Phrase { words: words.trim().to_lowercase(), instead: instead.trim().to_owned() })
        })
        .collect()
}

/// The places where `text` uses one of the phrases: the line it begins in, and the phrase. A phrase matches whole
/// words, in any case, over line ends; an identifier's `_` counts as a space, so that names are read, too.
#[must_use]
pub fn find<'a>(text: &str, phrases: &'a [Phrase]) -> Vec<(usize, &'a Phrase)> {
    let words = words(text);
    let mut found = Vec::new();
    for phrase in phrases {
        let wanted: Vec<&str> = phrase.words.split(' ').collect();
        for window in words.windows(wanted.len()) {
            if window.iter().zip(&wanted).all(|((word, _), wanted)| word == wanted) {
                found.push((window[0].1, phrase));
            }
        }
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// The words of a text in lower case, each with the number of its line. Punctuation at either end of a sentence stays
/// between words as a word of its own, so that no phrase runs over the end of a sentence.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches(['/', '!', '#', '*', '-', ' ']);
        let mut word = String::new();
        for character in line.chars().chain([' ']) {
            if character.is_alphanumeric() || character == '\'' {
                word.extend(character.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                words.push((std::mem::take(&mut word), index + 1));
            }
            if !character.is_whitespace() && character != '_' {
                words.push((character.to_string(), index + 1));
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_found_over_line_ends_and_in_names_but_not_over_sentences() {
        let phrases = parse("# a comment\n\nany more -> no longer\nas it may -> rewrite\n").expect("a list");
        let lines = |text| find(text, &phrases).iter().map(|(line, _)| *line).collect::<Vec<_>>();
        assert_eq!(lines("/// It is not there any\n/// more."), [1]);
        assert_eq!(lines("x\nfn not_any_more() {}"), [2]);
        assert_eq!(lines("As it may."), [1]);
        assert!(lines("Is there any? More follows. Many more.").is_empty());
    }

    #[test]
    fn a_line_without_an_arrow_is_rejected() {
        assert!(parse("any more").is_err());
    }
}
