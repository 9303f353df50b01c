//! What a source file says, read from its tokens: those of macro calls are seen as well, which a syntax tree leaves
//! unparsed. Items under `#[cfg(test)]` are left out.

use anyhow::Context as _;
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Expr, LitStr, Path, Token,
    parse::{Parse, ParseStream},
};

/// A call of `counter!`, `gauge!` or `histogram!`.
#[derive(Debug, PartialEq, Eq)]
pub struct Emission {
    /// The macro's name.
    pub kind: String,
    /// The constant that names the metric.
    pub constant: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// The line that it is in.
    pub line: usize,
}

/// The string literals of a file.
///
/// # Errors
/// When the file is not Rust.
pub fn strings(source: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    walk(parse(source)?, &mut |tokens| {
        if let Some(TokenTree::Literal(literal)) = tokens.first()
            && let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string())
        {
            found.push(text.value());
        }
    });
    Ok(found)
}

/// The methods that a file calls on the variable `name`.
///
/// # Errors
/// When the file is not Rust.
pub fn calls_on(name: &str, source: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    walk(parse(source)?, &mut |tokens| {
        if let [TokenTree::Ident(variable), TokenTree::Punct(dot), TokenTree::Ident(method), ..] = tokens
            && variable == name
            && dot.as_char() == '.'
        {
            found.push(method.to_string());
        }
    });
    Ok(found)
}

/// The metrics that a file emits.
///
/// # Errors
/// When the file is not Rust, or names a metric by anything but a constant.
pub fn emissions(source: &str) -> anyhow::Result<Vec<Emission>> {
    let mut calls = Vec::new();
    walk(parse(source)?, &mut |tokens| {
        if let [TokenTree::Ident(name), TokenTree::Punct(mark), TokenTree::Group(arguments), ..] = tokens
            && ["counter", "gauge", "histogram"].contains(&name.to_string().as_str())
            && mark.as_char() == '!'
        {
            calls.push((name.clone(), arguments.stream()));
        }
    });
    let emission = |(name, arguments): (proc_macro2::Ident, _)| {
        let line = name.span().start().line;
        let Arguments { constant, labels } = syn::parse2(arguments)
            .with_context(|| format!("line {line}: expected {name}!(CONSTANT, \"label\" => …)"))?;
        Ok(Emission { kind: name.to_string(), constant, labels, line })
    };
    calls.into_iter().map(emission).collect()
}

struct Arguments {
    constant: String,
    labels: Vec<String>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name: Path = input.parse()?;
        let constant = name.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        let mut labels = Vec::new();
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            labels.push(input.parse::<LitStr>()?.value());
            input.parse::<Token![=>]>()?;
            input.parse::<Expr>()?;
        }
        Ok(Self { constant, labels })
    }
}

fn parse(source: &str) -> anyhow::Result<TokenStream> {
    source.parse().map_err(|error| anyhow::anyhow!("not Rust: {error}"))
}

/// Calls `see` for each token with those that follow it in its group.
fn walk(stream: TokenStream, see: &mut impl FnMut(&[TokenTree])) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        if let TokenTree::Group(group) = first {
            if group.to_string().replace(' ', "") == "[cfg(test)]" {
                rest = after_item(after);
                continue;
            }
            walk(group.stream(), see);
        }
        see(rest);
        rest = after;
    }
}

/// What follows the item that `tokens` begin with.
fn after_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == proc_macro2::Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    };
    tokens.iter().position(is_end).map_or(&[], |end| &tokens[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
        fn f() {
            select! { _ = g() => counter!(metrics::DONE, "topic" => h("x"), "outcome" => outcome).increment(1) }
            gauge!(OPEN).set(1.0);
            reader.api();
        }
        #[cfg(test)]
        mod tests { fn t() { gauge!(HIDDEN); reader.hidden("hidden"); } }
        fn after() { "after"; }
    "#;

    #[test]
    fn metrics_are_found_in_macros_too_with_their_labels() {
        let found = emissions(SOURCE).expect("Rust");
        let found: Vec<_> = found
            .iter()
            .map(|found| format!("{} {} {:?} {}", found.kind, found.constant, found.labels, found.line))
            .collect();
        assert_eq!(found, [r#"counter DONE ["topic", "outcome"] 3"#, "gauge OPEN [] 4"]);
    }

    #[test]
    fn a_metric_without_a_constant_is_an_error() {
        assert!(emissions(r#"fn f() { gauge!("open"); }"#).is_err());
    }

    #[test]
    fn strings_and_calls_are_found_outside_of_tests() {
        assert_eq!(strings(SOURCE).expect("Rust"), ["topic", "x", "outcome", "after"]);
        assert_eq!(calls_on("reader", SOURCE).expect("Rust"), ["api"]);
    }
}
