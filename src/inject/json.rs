//! JSON as the admission path reads it: in one pass, borrowed from the text, and skipping what nobody
//! asks for.
//!
//! A decision needs a tenth of a pod. Most of what a general reader costs goes into the other nine
//! tenths, so here they are passed over by their strings and brackets alone, 64 bytes at a time ("Parsing
//! Gigabytes of JSON per Second", Langdale and Lemire, VLDB Journal 28, 2019). They are checked no further
//! than that: what sends a review is a JSON encoder, and nothing is ever concluded from what is skipped.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use wide::u8x16;

/// Deepest nesting that is read, that of `serde_json`: what is deeper is no pod but an attack on a stack.
const MAX_DEPTH: u32 = 128;
/// Most items of lists that are read of a document: more than any pod has that the API server takes, and few enough that what
/// they become fits into memory many times. An item can be two bytes of JSON and a hundred of memory.
const MAX_ITEMS: u32 = 50_000;
/// The name by which [`Raw`] asks for a delimited value.
const RAW: &str = "reach: a delimited value";

/// A value that is delimited and not yet parsed.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a>(pub &'a str);

/// Why a document cannot be read. The message may show a value.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.0)]
pub struct Error(Box<Message>);

/// In a box: an error that is as small as a pointer makes the results small that every value is returned in.
#[derive(Debug)]
struct Message(String);

/// Reads one JSON document. For `serde_path_to_error`, else see [`from_str`].
#[derive(Debug)]
pub struct Deserializer<'de> {
    text: &'de str,
    /// Position of the byte that is next.
    at: usize,
    depth: u32,
    /// How many more items of lists may come.
    items_left: u32,
}

/// The members of a mapping or the items of a list, one after the other.
struct Items<'r, 'de> {
    reader: &'r mut Deserializer<'de>,
    close: u8,
    first: bool,
    ended: bool,
}

/// Reads a document.
///
/// # Errors
/// If it is no JSON, as far as it is looked at, or not what `T` expects.
pub fn from_str<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Error> {
    let mut reader = Deserializer::new(text);
    let value = T::deserialize(&mut reader)?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(Error::custom("expected the end of the document")),
    }
}

/// Reads a document, whose encoding is checked as a whole: that takes a fraction of what checking each
/// string does.
///
/// # Errors
/// As [`from_str`], and if it is not UTF-8.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    std::str::from_utf8(bytes).map_err(Error::custom).and_then(from_str)
}

// === impl Raw ===

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Raw<'de>, E> {
                Ok(Raw(text))
            }
        }

        deserializer.deserialize_newtype_struct(RAW, RawVisitor)
    }
}

// === impl Error ===

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new(Message(message.to_string())))
    }
}

// === impl Deserializer ===

impl<'de> Deserializer<'de> {
    /// A reader of this document.
    #[must_use]
    pub fn new(text: &'de str) -> Self {
        Self { text, at: 0, depth: 0, items_left: MAX_ITEMS }
    }

    /// The next byte that is not white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[inline]
    fn peek_value(&mut self) -> Result<u8, Error> {
        self.peek().ok_or_else(ends_early)
    }

    /// The string whose opening quote is next.
    #[inline]
    fn string(&mut self) -> Result<Cow<'de, str>, Error> {
        let open = self.at;
        let bytes = self.text.as_bytes();
        let stop = string_stop(bytes, open + 1).ok_or_else(ends_early)?;
        if bytes[stop] == b'"' {
            self.at = stop + 1;
            return Ok(Cow::Borrowed(&self.text[open + 1..stop]));
        }
        self.at = after_string(bytes, stop)?;
        serde_json::from_str(&self.text[open..self.at]).map(Cow::Owned).map_err(Error::custom)
    }

    /// The value that is next, whatever it is.
    fn skip(&mut self) -> Result<&'de str, Error> {
        let first = self.peek_value()?;
        let start = self.at;
        self.at = match first {
            b'"' => after_string(self.text.as_bytes(), start + 1)?,
            b'{' | b'[' => after_container(self.text.as_bytes(), start, MAX_DEPTH - self.depth)?,
            _ => self.after_scalar()?,
        };
        Ok(&self.text[start..self.at])
    }

    /// The end of the number or literal that is next.
    fn after_scalar(&self) -> Result<usize, Error> {
        let rest = &self.text.as_bytes()[self.at..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        match rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len()) {
            0 => Err(Error::custom("expected a value")),
            length => Ok(self.at + length),
        }
    }

    fn scalar<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let end = self.after_scalar()?;
        let token = &self.text[self.at..end];
        self.at = end;
        match token {
            "null" => visitor.visit_unit(),
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            number => {
                let number = number.parse().map_err(|_| Error::custom("expected a value"))?;
                visitor.visit_f64(number)
            }
        }
    }

    fn items<T>(
        &mut self,
        close: u8,
        visit: impl FnOnce(&mut Items<'_, 'de>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(too_deep());
        }
        self.depth += 1;
        self.at += 1;
        let mut items = Items { reader: self, close, first: true, ended: false };
        let value = visit(&mut items)?;
        // A visitor that knows how many there are does not ask for one more.
        if !items.ended && items.next()? {
            return Err(Error::custom("expected fewer items"));
        }
        self.depth -= 1;
        Ok(value)
    }

    fn map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        self.items(b'}', |items| visitor.visit_map(items))
    }
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek_value()? {
            b'"' => match self.string()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            b'{' => self.map(visitor),
            b'[' => self.items(b']', |items| visitor.visit_seq(items)),
            _ => self.scalar(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek_value()? == b'n' { self.scalar(visitor) } else { visitor.visit_some(self) }
    }

    /// A mapping only: what serde derives for a struct takes a list too, whose places no patch would find.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.peek_value()? {
            b'{' => self.map(visitor),
            _ => Err(Error::invalid_type(Unexpected::Other("another type"), &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == RAW {
            visitor.visit_borrowed_str(self.skip()?)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map enum identifier
    }
}

// === impl Items ===

impl Items<'_, '_> {
    /// Whether there is one more.
    #[inline]
    fn next(&mut self) -> Result<bool, Error> {
        let byte = self.reader.peek_value()?;
        if byte == self.close {
            self.reader.at += 1;
            self.ended = true;
            return Ok(false);
        }
        if !self.first {
            if byte != b',' {
                return Err(Error::custom("expected a comma or the end of a mapping or list"));
            }
            self.reader.at += 1;
        }
        self.first = false;
        Ok(true)
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.next()? {
            return Ok(None);
        }
        if self.reader.peek_value()? != b'"' {
            return Err(Error::custom("expected a key"));
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        if self.reader.peek_value()? != b':' {
            return Err(Error::custom("expected a colon after a key"));
        }
        self.reader.at += 1;
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if !self.next()? {
            return Ok(None);
        }
        self.reader.items_left = self.reader.items_left.checked_sub(1).ok_or_else(too_many)?;
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

// === passing over ===

/// 64 bytes. What is found in them is a bit each, the lowest for the first byte.
#[derive(Clone, Copy)]
struct Block([u8x16; 4]);

/// What is carried from one block to the next.
#[derive(Clone, Copy, Default)]
struct Carry {
    /// All bits set when a string is open.
    string: u64,
    /// 1 when the first byte is escaped.
    escaped: u64,
}

impl Block {
    /// The block that begins at `at`, filled up with spaces.
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let rest = bytes.get(at..)?;
        let filled;
        let block = match rest.first_chunk::<64>() {
            Some(block) => block,
            None if rest.is_empty() => return None,
            None => {
                let mut block = [b' '; 64];
                block[..rest.len()].copy_from_slice(rest);
                filled = block;
                &filled
            }
        };
        let (parts, _) = block.as_chunks::<16>();
        Some(Self([parts[0].into(), parts[1].into(), parts[2].into(), parts[3].into()]))
    }

    fn bits(self, test: impl Fn(u8x16) -> u8x16) -> u64 {
        let [a, b, c, d] = self.0.map(|part| u64::from(test(part).to_bitmask()));
        a | b << 16 | c << 32 | d << 48
    }

    fn equal(self, byte: u8) -> u64 {
        self.bits(|part| part.simd_eq(u8x16::splat(byte)))
    }

    fn control(self) -> u64 {
        self.bits(|part| part.simd_le(u8x16::splat(0x1f)))
    }

    /// Whether there is a backslash or a control character: most blocks have none, and one question is cheaper than two answers.
    fn is_special(self) -> bool {
        let is = |part: u8x16| part.simd_eq(u8x16::splat(b'\\')) | part.simd_le(u8x16::splat(0x1f));
        let [a, b, c, d] = self.0.map(is);
        ((a | b) | (c | d)).to_bitmask() != 0
    }

    /// The bytes that are inside of strings, with the opening quotes and without the closing ones.
    fn strings(self, is_special: bool, carry: &mut Carry) -> u64 {
        let mut quotes = self.equal(b'"');
        if is_special || carry.escaped != 0 {
            let backslashes = self.equal(b'\\');
            if backslashes | carry.escaped != 0 {
                quotes &= !escaped(backslashes, &mut carry.escaped);
            }
        }
        // Each bit becomes the parity of all up to it.
        for shift in [1, 2, 4, 8, 16, 32] {
            quotes ^= quotes << shift;
        }
        let strings = quotes ^ carry.string;
        carry.string = 0_u64.wrapping_sub(strings >> 63);
        strings
    }
}

/// The bytes behind a backslash that is not escaped itself.
fn escaped(mut backslashes: u64, carry: &mut u64) -> u64 {
    let mut escaped = *carry;
    backslashes &= !escaped;
    *carry = 0;
    while backslashes != 0 {
        let next = backslashes & backslashes.wrapping_neg();
        if next >> 63 == 1 {
            *carry = 1;
        }
        escaped |= next << 1;
        backslashes &= !(next | next << 1);
    }
    escaped
}

/// The end of the mapping or list that begins at `start`.
fn after_container(bytes: &[u8], start: usize, room: u32) -> Result<usize, Error> {
    let (mut at, mut depth, mut carry) = (start, 0, Carry::default());
    while let Some(block) = Block::at(bytes, at) {
        let is_special = block.is_special();
        let strings = block.strings(is_special, &mut carry);
        // A bracket and a brace are one bit apart.
        let bracket = |close: u8| {
            block.bits(|part| (part | u8x16::splat(0x20)).simd_eq(u8x16::splat(close))) & !strings
        };
        let (opens, closes) = (bracket(b'{'), bracket(b'}'));
        if is_special && block.control() & strings != 0 {
            return Err(Error::custom("a control character in a string"));
        }
        // It does not end here, and gets nowhere too deep.
        if depth > closes.count_ones() && depth + opens.count_ones() <= room {
            depth = depth + opens.count_ones() - closes.count_ones();
            at += 64;
            continue;
        }
        let mut brackets = opens | closes;
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            if opens & bit != 0 {
                if depth == room {
                    return Err(too_deep());
                }
                depth += 1;
            } else {
                depth -= 1;
                if depth == 0 {
                    let end = at + bit.trailing_zeros() as usize;
                    return match (bytes[start], bytes[end]) {
                        (b'{', b'}') | (b'[', b']') => Ok(end + 1),
                        _ => Err(Error::custom("a bracket closes another kind of bracket")),
                    };
                }
            }
            brackets &= !bit;
        }
        at += 64;
    }
    Err(ends_early())
}

/// The end of the string that has begun before `at`.
fn after_string(bytes: &[u8], mut at: usize) -> Result<usize, Error> {
    loop {
        at = string_stop(bytes, at).ok_or_else(ends_early)?;
        match bytes[at] {
            b'"' => return Ok(at + 1),
            b'\\' => at += 2,
            _ => return Err(Error::custom("a control character in a string")),
        }
    }
}

/// The next quote, backslash or control character, sixteen bytes at a time.
fn string_stop(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let part = u8x16::from(*chunk);
        let found = part.simd_eq(u8x16::splat(b'"'))
            | part.simd_eq(u8x16::splat(b'\\'))
            | part.simd_le(u8x16::splat(0x1f));
        let found = found.to_bitmask();
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize);
        }
        at += 16;
    }
    let rest = bytes.get(at..)?;
    Some(at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20))?)
}

fn ends_early() -> Error {
    Error::custom("the document ends early")
}

fn too_many() -> Error {
    Error::custom("too many items of lists")
}

fn too_deep() -> Error {
    Error::custom(format_args!("nested more than {MAX_DEPTH} levels deep"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(default)]
        list: Option<Vec<Value>>,
    }

    #[derive(serde::Deserialize)]
    struct Borrowed<'a> {
        #[serde(borrow)]
        raw: Raw<'a>,
        name: &'a str,
    }

    #[test]
    fn what_is_asked_for_is_read_wherever_it_stands() {
        let texts = [
            r#"{"name":"a","list":[1,"b",{"c":null}]}"#,
            " {\n \"list\" : [ 1.0 , \"b\" , { \"c\" : null } ] ,\t\"name\" : \"a\" } \r\n",
            r#"{"x":{"name":"no","y":["]","}","\"","\\",{"z":-1.5e+3}]},"name":"a","list":[1,"b",{"c":null}],"w":true}"#,
        ];
        for text in texts {
            let part: Part<'_> = from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(part.name, "a", "{text}");
            assert_eq!(part.list.map(|list| list.len()), Some(3), "{text}");
        }
    }

    #[test]
    fn escapes_are_resolved_and_only_they_are_copied() {
        for (text, name) in [
            (r#"{"name":"a\"b\\c\/d\u00e9\n"}"#, "a\"b\\c/dé\n"),
            (r#"{"name":"\ud83d\ude00 at the end\\"}"#, "😀 at the end\\"),
            (
                r#"{"name":"ordinary, and longer than eight bytes: é"}"#,
                "ordinary, and longer than eight bytes: é",
            ),
            (r#"{"name":""}"#, ""),
        ] {
            let part: Part<'_> = from_str(text).expect(text);
            assert_eq!(part.name, name);
        }
        let part: Borrowed<'_> = from_str(r#"{"raw": [1, {"a": "]"}] ,"name":"n"}"#).unwrap();
        assert_eq!((part.raw.0, part.name), (r#"[1, {"a": "]"}]"#, "n"));
    }

    #[test]
    fn what_is_broken_is_an_error_also_where_it_is_skipped() {
        for text in [
            "",
            "{",
            r#"{"name""#,
            r#"{"name":"#,
            r#"{"name":"a"#,
            r#"{"name":"a\"#,
            r#"{"name":"a\""#,
            r#"{"name":"a""#,
            r#"{"name":"a",}"#,
            r#"{"name":"a"}}"#,
            r#"{"name":"a"} x"#,
            r#"{"name" "a"}"#,
            r#"{"name":"a" "x":1}"#,
            r#"{name:"a"}"#,
            r#"{"name":"a\q"}"#,
            r#"{"name":"\ud800"}"#,
            r#"{"x":[1},"name":"a"}"#,
            r#"{"x":{]},"name":"a"}"#,
            r#"{"x":[[1],"name":"a"}"#,
            r#"{"x":,"name":"a"}"#,
            r#"{"name":"a","name":"b"}"#,
            "{\"name\":\"a\0\"}",
            "{\"name\":\"a\",\"x\":\"\n1234567\"}",
            r#"["a",[]]"#,
            "null",
            "7",
            r#"{"name":null}"#,
            r#"{"name":["a"]}"#,
            r#"{"name":"a","list":[1 2]}"#,
            r#"{"name":"a","list":{}}"#,
            r#"{"name":"a","list":[nul]}"#,
        ] {
            assert!(from_str::<Part<'_>>(text).is_err(), "{text}");
        }
    }

    /// Blocks of 64 bytes begin anywhere in a document.
    #[test]
    fn what_is_skipped_ends_where_it_ends_wherever_that_is_in_a_block() {
        for pad in 0..70 {
            for backslashes in 0..70 {
                let text = format!(
                    r#"{{{}"x":[{{"k{}\"]":"[\"{{"}},"{}","]}}",[]],"name":"a","y":{{"z":"]"}}}}"#,
                    " ".repeat(pad),
                    "-".repeat(backslashes),
                    r"\\".repeat(backslashes),
                );
                let part: Part<'_> = from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                assert_eq!(part.name, "a", "{text}");
                assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
                // Every shorter text is no document.
                for end in [text.len() - 1, text.len() / 2, pad + 70] {
                    assert!(from_str::<Part<'_>>(&text[..end.min(text.len() - 1)]).is_err(), "{text}");
                }
            }
        }
    }

    #[test]
    fn nesting_has_a_limit_where_it_is_read_and_where_it_is_skipped() {
        for (levels, fits) in [(126, true), (127, true), (128, false), (100_000, false)] {
            let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            for key in ["x", "list"] {
                let text = format!(r#"{{"name":"a","{key}":{nested}}}"#);
                assert_eq!(from_str::<Part<'_>>(&text).is_ok(), fits, "{key} {levels}");
            }
        }
    }
}
