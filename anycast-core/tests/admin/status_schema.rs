//! `docs/status.schema.json` describes `/status`: what a node says fits it, and what it
//! describes is said.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anycast_core::announce::Preference;
use anycast_core::testing::fakes::Behaviour;
use anycast_core::{Verdict, health};
use serde_json::Value;

use crate::support::Endpoint;

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/status.schema.json");
    let text = fs::read_to_string(&path);
    serde_json::from_str(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

/// Compares answers with the schema, of which it knows the part that the file uses; a keyword
/// that it does not know fails.
struct Reader {
    schema: Value,
    faults: Vec<String>,
    /// What was seen, `Service.reason`; and with a type where there are several.
    seen: BTreeSet<String>,
}

const TITLES: [&str; 5] = ["title", "description", "$schema", "$id", "$defs"];

impl Reader {
    fn new() -> Self {
        Self {
            schema: schema(),
            faults: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    fn read(&mut self, status: &Value) {
        let schema = self.schema.clone();
        self.fits("status", &schema, status);
    }

    fn fits(&mut self, place: &str, schema: &Value, value: &Value) {
        let keywords = schema.as_object().unwrap();
        for (keyword, wish) in keywords {
            let good = match keyword.as_str() {
                word if TITLES.contains(&word) => true,
                "type" => self.has_type(place, wish, value),
                "enum" => {
                    self.seen.insert(format!("{place}={value}"));
                    wish.as_array().unwrap().contains(value)
                }
                "minimum" => value.as_f64().is_none_or(|n| n >= wish.as_f64().unwrap()),
                "maxLength" => value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 <= wish.as_u64().unwrap()),
                "$ref" => {
                    let name = wish.as_str().unwrap().rsplit('/').next().unwrap();
                    let definition = self.schema["$defs"][name].clone();
                    // A plain value keeps the place it is used in.
                    let is_object = definition["type"] == "object";
                    let place = if is_object { name } else { place };
                    self.fits(place, &definition, value);
                    true
                }
                "oneOf" => {
                    // Nothing or something, in this file.
                    let [nothing, something] = &wish.as_array().unwrap()[..] else {
                        panic!("{place}: oneOf of other than two");
                    };
                    assert_eq!(nothing["type"], "null", "{place}");
                    self.seen
                        .insert(format!("{place} is null: {}", value.is_null()));
                    if !value.is_null() {
                        self.fits(place, something, value);
                    }
                    true
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.fits(&format!("{place}[]"), wish, item);
                    }
                    true
                }
                "required" => {
                    let mut names = wish.as_array().unwrap().iter();
                    names.all(|name| value.get(name.as_str().unwrap()).is_some())
                }
                "properties" => {
                    for (name, member) in value.as_object().into_iter().flatten() {
                        if let Some(schema) = wish.get(name) {
                            let place = format!("{place}.{name}");
                            self.seen.insert(place.clone());
                            self.fits(&place, schema, member);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = schema["properties"].as_object().unwrap();
                    let mut names = value.as_object().into_iter().flatten();
                    wish.as_bool().unwrap() || names.all(|(name, _)| known.contains_key(name))
                }
                other => panic!("{place}: the keyword {other} is not read here"),
            };
            if !good {
                self.faults
                    .push(format!("{place}: {keyword} {wish}: {value}"));
            }
        }
    }

    fn has_type(&mut self, place: &str, wish: &Value, value: &Value) -> bool {
        let is = |kind: &str| match kind {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("{place}: no type {other}"),
        };
        if let Some(kinds) = wish.as_array() {
            let kind = kinds.iter().filter_map(Value::as_str).find(|kind| is(kind));
            self.seen.insert(format!("{place}:{}", kind.unwrap_or("-")));
            return kind.is_some();
        }
        is(wish.as_str().unwrap())
    }

    /// Everything that the schema can say, as [`seen`](Self::seen) names it.
    fn described(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut objects: Vec<_> = self.schema["$defs"].as_object().unwrap().iter().collect();
        let root = "status".to_owned();
        objects.push((&root, &self.schema));
        for (name, object) in objects {
            for (property, schema) in object["properties"].as_object().into_iter().flatten() {
                let place = format!("{name}.{property}");
                for kind in schema["type"].as_array().into_iter().flatten() {
                    all.insert(format!("{place}:{}", kind.as_str().unwrap()));
                }
                all.insert(place);
            }
        }
        all
    }
}

#[tokio::test]
async fn status_fits_its_schema_and_the_schema_says_no_more() {
    let mut reader = Reader::new();
    let calm = Endpoint::start().await;
    reader.read(&calm.get("/status").await.json());
    calm.announcer.set_failing(true);
    calm.order("drain", "{}").await;
    reader.read(&calm.get("/status").await.json());

    let troubled = Endpoint::in_trouble().await;
    reader.read(&troubled.get("/status").await.json());
    troubled
        .order("drain", r#"{"for": "2h", "force": true}"#)
        .await;
    reader.read(&troubled.get("/status").await.json());
    troubled.order("undrain", "{}").await;
    troubled.park().await;
    reader.read(&troubled.get("/status").await.json());
    #[cfg(feature = "mesh")]
    read_mesh(&mut reader).await;
    assert_eq!(reader.faults, Vec::<String>::new());

    // Only some values need a moment that nobody can wait for.
    let unseen: Vec<_> = reader
        .described()
        .difference(&reader.seen)
        .cloned()
        .collect();
    let rare = [
        // Before the first decision; before a peer or a check is first heard.
        "Service.preference_age_s:null",
        "Check.verdict:null",
        "Check.verdict_age_s:null",
        "Peer.heard_age_s:null",
        "Peer.preferred:null",
        "Peer.draining:null",
        "Peer.failing_age_s:null",
    ];
    let unexpected: Vec<_> = unseen
        .iter()
        .filter(|u| !rare.contains(&u.as_str()))
        .filter(|u| cfg!(feature = "mesh") || !is_of_mesh(u))
        .collect();
    assert!(
        unexpected.is_empty(),
        "described and never said: {unexpected:?}"
    );
}

fn is_of_mesh(place: &str) -> bool {
    let of = [
        "status.mesh",
        "Mesh",
        "PeerService.",
        "DataSet.",
        "Client",
        "Turn.",
    ];
    of.iter().any(|of| place.starts_with(of))
}

#[cfg(feature = "mesh")]
async fn read_mesh(reader: &mut Reader) {
    let mut meshed = crate::mesh::Meshed::start().await;
    reader.read(&meshed.complete().await);
    let told = anycast_core::catchment::Clients::default();
    meshed.joined.tell_clients(move |_, _| told.clone());
    let told = meshed
        .until("its own clients", |mesh| mesh["clients"].is_object())
        .await;
    reader.read(&told);
    reader.read(&meshed.take_turns().await);
    reader.read(&meshed.wait_to_leave().await);
}

/// The three questions of whoever is woken.
#[tokio::test]
async fn a_demoted_service_says_why_since_when_and_what_would_raise_it() {
    let endpoint = Endpoint::start().await;
    let why = Verdict::unhealthy("the disk is gone");
    endpoint.check.set(Behaviour::Say(why));
    endpoint.in_force(Preference::Demoted).await;
    let status = endpoint.get("/status").await.json();
    let service = &status["services"][0];
    let told = |key: &str| service[key].as_str().unwrap().to_owned();
    assert_eq!(told("preference"), "demoted");
    assert!(
        told("reason").contains("probe is down: the disk is gone"),
        "{service:#}"
    );
    assert!(service["preference_age_s"].as_f64().unwrap() >= 0.0);
    assert!(told("would_raise").contains("probe: "), "{service:#}");
    assert!(told("reason").chars().count() <= health::MAX_REASON_CHARS);
}
