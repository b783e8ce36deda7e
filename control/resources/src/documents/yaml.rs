//! YAML texts.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

use super::place::{Inside, Place, Position};
use super::{Document, SyntaxError, scalar};

/// Aliases may expand to so many values in one document, so that a few lines cannot fill memory.
const MAX_EXPANDED: usize = 100_000;

/// See [`super::read_yaml`].
pub(super) fn read(text: &str) -> Vec<Result<Document, SyntaxError>> {
    let mut parser = Parser::new_from_str(text);
    let mut documents = Vec::new();
    let mut builder: Option<Builder> = None;
    loop {
        let failure = match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((Event::DocumentStart(..), span))) => {
                builder = Some(Builder::new(position(&span.start)));
                None
            }
            Some(Ok((Event::DocumentEnd, _))) => {
                documents.extend(builder.take().and_then(Builder::finish).map(Ok));
                None
            }
            Some(Ok((event, span))) => {
                let at = position(&span.start);
                let done = builder.as_mut().map_or(Ok(()), |builder| builder.event(event, at));
                done.err().map(|message| (at, message))
            }
            Some(Err(error)) => Some((position(error.marker()), error.info())),
        };
        let Some((at, message)) = failure else { continue };
        let begin = builder.take().map_or(at, |builder| builder.begin());
        documents.push(Err(SyntaxError { at, begin, message }));
        // Later documents do not suffer for it.
        if !parser.proceed_next_document().unwrap_or(false) {
            break;
        }
    }
    documents
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A value with its places.
type Node = (Value, Place);

/// A document that is being read.
struct Builder {
    start: Position,
    /// The collections that are open, outermost first.
    open: Vec<Open>,
    root: Option<Node>,
    /// Values with anchors, and their sizes.
    anchors: HashMap<usize, (Node, usize)>,
    expanded: usize,
}

/// A collection that is open.
struct Open {
    at: Position,
    /// 0 for none.
    anchor: usize,
    kind: Collection,
}

enum Collection {
    List(Vec<Node>),
    Map { members: BTreeMap<String, Node>, key: Option<(String, Position)>, merged: Vec<Node> },
}

// === impl Builder ===

impl Builder {
    fn new(start: Position) -> Self {
        Self { start, open: Vec::new(), root: None, anchors: HashMap::new(), expanded: 0 }
    }

    /// Where the content begins.
    fn begin(&self) -> Position {
        let first = self.open.first().map(|open| open.at);
        first.or_else(|| self.root.as_ref().map(|(_, place)| place.at)).unwrap_or(self.start)
    }

    /// The document, if there is anything in it.
    fn finish(self) -> Option<Document> {
        let (value, place) = self.root?;
        (!value.is_null()).then_some(Document { value, place })
    }

    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag, at),
            Event::Alias(anchor) => {
                let ((value, place), size) =
                    self.anchors.get(&anchor).ok_or("the alias is inside what it names")?;
                self.expanded += size;
                if self.expanded > MAX_EXPANDED {
                    return Err(format!("aliases expand to more than {MAX_EXPANDED} values"));
                }
                let node = (value.clone(), Place { at, inside: place.inside.clone() });
                self.add(node)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(at, anchor, Collection::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => {
                let (members, key, merged) = Default::default();
                self.open(at, anchor, Collection::Map { members, key, merged })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        at: Position,
    ) -> Result<(), String> {
        let is_plain = style == ScalarStyle::Plain;
        if let Some(Open { kind: Collection::Map { members, key: key @ None, .. }, .. }) =
            self.open.last_mut()
        {
            if let Some((_, first)) = members.get(&*text) {
                let line = first.at.line;
                return Err(format!(
                    "the key {text:?} is already on line {line}; remove one of the two"
                ));
            }
            let merge = is_plain && text == "<<";
            *key = Some((if merge { MERGE.to_owned() } else { text.clone().into_owned() }, at));
            if anchor != 0 {
                self.anchors
                    .insert(anchor, ((Value::String(text.into_owned()), Place::new(at)), 1));
            }
            return Ok(());
        }
        let as_text = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
        let value = if is_plain && !as_text {
            scalar::plain(&text)
        } else {
            Value::String(text.into_owned())
        };
        self.anchor(anchor, (value, Place::new(at)))
    }

    fn open(&mut self, at: Position, anchor: usize, kind: Collection) -> Result<(), String> {
        if let Some(Open { kind: Collection::Map { key: None, .. }, .. }) = self.open.last() {
            return Err("a key must be a word, not a list or a map".to_owned());
        }
        self.open.push(Open { at, anchor, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(Open { at, anchor, kind }) = self.open.pop() else { return Ok(()) };
        let node = match kind {
            Collection::List(nodes) => {
                let (values, places) = nodes.into_iter().unzip();
                (Value::Array(values), Place { at, inside: Inside::List(places) })
            }
            Collection::Map { mut members, merged, .. } => {
                for node in merged {
                    merge(&mut members, node)?;
                }
                let mut values = Map::new();
                let mut places = BTreeMap::new();
                for (key, (value, place)) in members {
                    values.insert(key.clone(), value);
                    places.insert(key, place);
                }
                (Value::Object(values), Place { at, inside: Inside::Map(places) })
            }
        };
        self.anchor(anchor, node)
    }

    /// Adds a complete value, and remembers it if it has an anchor.
    fn anchor(&mut self, anchor: usize, node: Node) -> Result<(), String> {
        if anchor != 0 {
            let size = size(&node.0);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        self.add(node)
    }

    fn add(&mut self, (value, mut place): Node) -> Result<(), String> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some((value, place)),
            Some(Collection::List(nodes)) => nodes.push((value, place)),
            Some(Collection::Map { members, key, merged }) => match key.take() {
                Some((key, _)) if key == MERGE => merged.push((value, place)),
                Some((key, at)) => {
                    place.at = at;
                    members.insert(key, (value, place));
                }
                // An alias in the place of a key.
                None => match value {
                    Value::String(text) => *key = Some((text, place.at)),
                    _ => return Err("a key must be a word, not a list or a map".to_owned()),
                },
            },
        }
        Ok(())
    }
}

/// Stands for a merge key; no key can be written like this, as NUL is not allowed in YAML.
const MERGE: &str = "\0<<";

/// Adds the members of a map, or of each map of a list, that are not there yet.
fn merge(members: &mut BTreeMap<String, Node>, (value, place): Node) -> Result<(), String> {
    match (value, place.inside) {
        (Value::Object(values), Inside::Map(mut places)) => {
            for (key, value) in values {
                let place = places.remove(&key).unwrap_or_else(|| Place::new(place.at));
                members.entry(key).or_insert((value, place));
            }
            Ok(())
        }
        (Value::Array(values), Inside::List(places)) => {
            values.into_iter().zip(places).try_for_each(|node| merge(members, node))
        }
        _ => Err("`<<` takes a map or a list of maps".to_owned()),
    }
}

/// How many values there are in a value.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}
