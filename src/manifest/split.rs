//! Cutting a stream into documents.

use super::{BOM, Document};

/// The documents of a stream, in order.
///
/// A document starts at a `---` at the start of a line and ends before the
/// next, or after a `...`; JSON objects may simply follow one another. Comments
/// and directives above the first `---`, or between a `...` and a `---`, belong
/// to the document below them. An empty stream has no documents.
#[must_use]
pub fn documents(stream: &str) -> Vec<Document<'_>> {
    let mut texts = Vec::new();
    let mut start = 0;
    let mut offset = 0;
    // Whether what is read of the document so far may still be the prefix of
    // one: blank lines, comments and directives.
    let mut prefix = true;
    for line in stream.split_inclusive('\n') {
        let content = match offset {
            0 => line.trim_start_matches(BOM),
            _ => line,
        };
        if is_marker(content, "---") {
            if !prefix {
                texts.push(&stream[start..offset]);
                start = offset;
            }
            prefix = false;
        } else if is_marker(content, "...") {
            texts.push(&stream[start..offset + line.len()]);
            start = offset + line.len();
            prefix = true;
        } else if !content.trim_start().is_empty() && !content.starts_with('%') {
            prefix &= content.trim_start().starts_with('#');
        }
        offset += line.len();
    }
    match texts.last_mut() {
        // Comments after the last `...`.
        Some(last) if prefix => *last = &stream[start - last.len()..],
        _ if start < stream.len() => texts.push(&stream[start..]),
        _ => {}
    }

    let mut line = 1;
    let mut documents = Vec::with_capacity(texts.len());
    for text in texts.into_iter().flat_map(json_texts) {
        documents.push(Document::new(text, documents.len() + 1, line));
        line += text.matches('\n').count();
    }
    documents
}

/// Whether a line is the document marker `marker`, alone or before content.
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Cuts JSON objects that follow one another apart; other text stays whole.
fn json_texts(text: &str) -> Vec<&str> {
    let content = text.trim_start_matches(BOM);
    if !content.trim_start().starts_with('{') {
        return vec![text];
    }
    let mut values = serde_json::Deserializer::from_str(content).into_iter::<serde::de::IgnoredAny>();
    let mut texts = Vec::new();
    let mut start = 0;
    while let Some(value) = values.next() {
        if value.is_err() {
            return vec![text];
        }
        // With the rest of the line when nothing else is on it.
        let end = text.len() - content.len() + values.byte_offset();
        let rest = text[end..].trim_start_matches([' ', '\t', '\r']);
        let end = match rest.strip_prefix('\n') {
            Some(next) => text.len() - next.len(),
            None => end,
        };
        texts.push(&text[start..end]);
        start = end;
    }
    if let Some(last) = texts.last_mut() {
        *last = &text[start - last.len()..];
    }
    texts
}
