//! Finds the path template that a path matches.

/// All templates of a document, the most literal first: `/configs/status` is not the `{key}` of `/configs/{key}`.
#[derive(Debug)]
pub(crate) struct Templates {
    templates: Vec<String>,
}

impl Templates {
    pub(crate) fn new<'a>(templates: impl Iterator<Item = &'a str>) -> Self {
        let mut templates: Vec<_> = templates.map(str::to_owned).collect();
        templates.sort_by_key(|template| template.split('/').map(is_parameter).collect::<Vec<_>>());
        Self { templates }
    }

    pub(crate) fn find(&self, path: &str) -> Option<&str> {
        self.templates.iter().map(String::as_str).find(|template| matches(template, path))
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (mut segments, mut actual) = (template.split('/'), path.split('/'));
    loop {
        match (segments.next(), actual.next()) {
            (None, None) => return true,
            (Some(segment), Some(text)) if segment == text || (is_parameter(segment) && !text.is_empty()) => {
            }
            _ => return false,
        }
    }
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::Templates;

    #[test]
    fn literal_segments_take_precedence() {
        let templates = Templates::new(
            ["/o/{org}/c/{key}", "/o/{org}/c/status", "/o/{org}/c/{key}/history", "/"].into_iter(),
        );
        assert_eq!(templates.find("/o/1/c/status"), Some("/o/{org}/c/status"));
        assert_eq!(templates.find("/o/1/c/log.level"), Some("/o/{org}/c/{key}"));
        assert_eq!(templates.find("/o/1/c/status/history"), Some("/o/{org}/c/{key}/history"));
        assert_eq!(templates.find("/"), Some("/"));
        assert_eq!(templates.find("/o/1/c/"), None);
        assert_eq!(templates.find("/o/1"), None);
    }
}
