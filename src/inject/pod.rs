//! The part of a pod that injection reads, borrowed from the bytes received.
//!
//! One pass over the JSON reads names, labels, annotations and variables; volumes, mounts and `envFrom`
//! are only delimited, and parsed when a preset has some of its own. Everything else is skipped, so
//! fields that this version of reach does not know cost and lose nothing.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::json::{self, Raw};
use super::select::Labels;

/// Most entries of a map of strings. All annotations of an object have at most 256 KiB together.
const MAX_ENTRIES: usize = 50_000;
/// Most bytes of lists that are parsed into values, which take many times as much: more than the API server stores of a pod.
pub(super) const MAX_PARSED: usize = 2 * 1024 * 1024;

/// A string, borrowed unless the JSON has escapes in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

/// A map of strings, in the order received; `null` is an empty one.
#[derive(Clone, Debug, Default)]
pub struct TextMap<'a>(pub Vec<(Text<'a>, Text<'a>)>);

/// A list of mappings that may be absent or `null`.
#[derive(Clone, Debug)]
pub struct List<T>(pub Option<Vec<T>>);

/// A pod, or the template of one.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct Pod<'a> {
    /// `metadata`; `None` when absent or `null`.
    #[serde(borrow)]
    pub metadata: Option<Metadata<'a>>,
    /// `spec`; `None` when absent or `null`.
    pub spec: Option<Spec<'a>>,
}

/// What is read of `metadata`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct Metadata<'a> {
    /// Labels.
    #[serde(borrow)]
    pub labels: TextMap<'a>,
    /// Annotations; `None` when absent or `null`.
    pub annotations: Option<TextMap<'a>>,
}

/// What is read of `spec`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct Spec<'a> {
    /// Init containers, native sidecars among them.
    #[serde(borrow)]
    pub init_containers: List<Container<'a>>,
    /// Containers.
    pub containers: List<Container<'a>>,
    /// Ephemeral containers.
    pub ephemeral_containers: List<Container<'a>>,
    /// Volumes, not yet parsed.
    #[serde(borrow)]
    pub volumes: Option<Raw<'a>>,
}

/// What is read of a container of any of the three lists.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct Container<'a> {
    /// Name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Variables.
    pub env: List<EnvVar<'a>>,
    /// Sources of variables, not yet parsed.
    #[serde(borrow)]
    pub env_from: Option<Raw<'a>>,
    /// Mounts, not yet parsed.
    pub volume_mounts: Option<Raw<'a>>,
    /// Block devices, not yet parsed; their paths share one space with those of mounts.
    pub volume_devices: Option<Raw<'a>>,
}

/// A variable of a container.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct EnvVar<'a> {
    /// Name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Literal value; absent means empty.
    pub value: Option<Text<'a>>,
    /// Present when the value comes from elsewhere.
    value_from: Option<IgnoredAny>,
}

// === impl Text ===

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

// === impl TextMap ===

impl TextMap<'_> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value)
    }
}

impl Labels for TextMap<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for TextMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;

        impl<'de> Visitor<'de> for MapVisitor {
            type Value = TextMap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_unit<E: Error>(self) -> Result<TextMap<'de>, E> {
                Ok(TextMap::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextMap<'de>, A::Error> {
                let mut entries = Vec::with_capacity(8);
                while let Some(key) = map.next_key()? {
                    let value: Option<Text<'de>> = map.next_value()?;
                    if entries.len() == MAX_ENTRIES {
                        return Err(A::Error::custom("too many entries"));
                    }
                    entries.push((key, value.unwrap_or_default()));
                }
                Ok(TextMap(entries))
            }
        }

        deserializer.deserialize_any(MapVisitor)
    }
}

// === impl List ===

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E: Error>(self) -> Result<List<T>, E> {
                Ok(List(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(List(Some(items)))
            }
        }

        deserializer.deserialize_any(ListVisitor(std::marker::PhantomData))
    }
}

// === impl Pod ===

impl<'a> Pod<'a> {
    /// Reads a pod from JSON.
    ///
    /// # Errors
    /// If the JSON is malformed, or a field that injection reads has another type than in core/v1.
    pub fn from_slice(json: &'a [u8]) -> Result<Self, json::Error> {
        json::from_slice(json)
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.annotations.as_ref()?.get(key)
    }

    /// A label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.labels.get(key)
    }
}

// === impl EnvVar ===

impl EnvVar<'_> {
    /// Whether the value comes from elsewhere.
    #[must_use]
    pub fn is_from(&self) -> bool {
        self.value_from.is_some()
    }

    /// The literal value.
    #[must_use]
    pub fn literal(&self) -> &str {
        self.value.as_deref().unwrap_or_default()
    }
}

/// Parses a delimited list; `None` and `null` are an empty one.
///
/// # Errors
/// If it is no list, nested too deeply, or too long.
pub fn items(raw: Option<Raw<'_>>) -> Result<Vec<Value>, serde_json::Error> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    if raw.0.len() > MAX_PARSED {
        return Err(serde_json::Error::custom("too long"));
    }
    serde_json::from_str::<Option<_>>(raw.0).map(Option::unwrap_or_default)
}
