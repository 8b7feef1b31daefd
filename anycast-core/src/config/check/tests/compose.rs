use super::*;

/// A kind that says what it is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SayTable {
    verdict: String,
}

struct Say(Verdict);

#[async_trait]
impl HealthCheck for Say {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        match &self.0 {
            Verdict::Unknown(_) => Verdict::unknown(format!("{timeout:?}")),
            verdict @ (Verdict::Healthy | Verdict::Unhealthy(..)) => verdict.clone(),
        }
    }
}

fn saying() -> Kinds<'static> {
    Kinds::default().with("say", |table: &SayTable, _: &CheckContext<'_>| {
        let verdict = match table.verdict.as_str() {
            "up" => Verdict::Healthy,
            "down" => Verdict::unhealthy("down"),
            "lost" => Verdict::unknown("lost"),
            other => return Err(format!("verdict: {other:?} is none")),
        };
        Ok(Arc::new(move || Box::new(Say(verdict.clone())) as Box<dyn HealthCheck>) as BuildCheck)
    })
}

async fn verdict(keys: &str) -> String {
    let specs = load_with(&format!("[[check]]\n{keys}\n"), &saying()).unwrap();
    let [spec] = &specs[..] else {
        panic!("{specs:?}")
    };
    (spec.build)()
        .check(Duration::from_millis(800))
        .await
        .to_string()
}

#[tokio::test(start_paused = true)]
async fn every_rule_can_be_written_down() {
    let (up, down, lost) = (
        r#"{ kind = "say", verdict = "up" }"#,
        r#"{ kind = "say", verdict = "down" }"#,
        r#"{ kind = "say", verdict = "lost" }"#,
    );
    assert_eq!(
        verdict(&format!("kind = \"all\"\nof = [{up}, {up}]")).await,
        "healthy"
    );
    assert_eq!(
        verdict(&format!("kind = \"all\"\nof = [{up}, {down}, {lost}]")).await,
        "unhealthy: all: say.2 unhealthy: down; say.3 unknown: 700ms"
    );
    assert_eq!(
        verdict(&format!("kind = \"any\"\nof = [{down}, {up}]")).await,
        "healthy"
    );
    assert_eq!(
        verdict(&format!("kind = \"not\"\nof = [{down}]")).await,
        "healthy"
    );
    assert_eq!(
        verdict(&format!(
            "kind = \"quorum\"\nat_least = 2\nof = [{down}, {up}, {lost}]"
        ))
        .await,
        "unknown: 1 of 3 healthy, 2 needed: say.1 unhealthy: down; say.3 unknown: 700ms"
    );
    assert_eq!(
        verdict(
            "kind = \"weighted\"\nthreshold = 3\n\
             [[check.of]]\nkind = \"say\"\nname = \"big\"\nweight = 3\nverdict = \"down\"\n\
             [[check.of]]\nkind = \"say\"\nname = \"small\"\nverdict = \"up\"",
        )
        .await,
        "unhealthy: weight 1 of 4, 3 needed: big unhealthy: down"
    );
    let nested =
        format!("kind = \"any\"\nof = [{{ kind = \"all\", of = [{up}, {down}] }}, {lost}]");
    assert_eq!(
        verdict(&nested).await,
        "unknown: any: all unhealthy: all: say.2 unhealthy: down; say unknown: 700ms"
    );
    let hasty = r#"{ kind = "say", verdict = "lost", timeout = "50ms" }"#;
    assert_eq!(
        verdict(&format!("kind = \"all\"\nof = [{hasty}]")).await,
        "unknown: all: say unknown: 50ms"
    );
}

#[track_caller]
fn fails(text: &str, whole: &str) {
    let line = load_with(text, &saying()).unwrap_err().to_string();
    assert_eq!(line, format!("/etc/a.toml:{whole}"), "{text}");
}

#[test]
fn a_fault_in_a_part_names_the_part() {
    fails(
        "[[check]]\nkind = \"all\"\nname = \"both\"\nof = [\n  { kind = \"say\", verdict = \"off\" },\n]\n",
        "5:19: [[check]] both/say verdict: \"off\" is none",
    );
    fails(
        "[[check]]\nkind = \"all\"\n[[check.of]]\nkind = \"any\"\nname = \"inner\"\n\
         [[check.of.of]]\nkind = \"say\"\nname = \"leaf\"\nverdit = 1\n",
        "9:1: [[check]] all/inner/leaf: unknown field `verdit`, expected `verdict`; besides these \
         such a part has `kind`, `name`, `timeout`, with \"weighted\" `weight`",
    );
    fails(
        "[[check]]\nkind = \"all\"\nof = [{ kind = \"sy\" }]\n",
        "3:9: [[check]] all/sy kind = \"sy\": no such kind is known here; use one of \"say\", \
         \"all\", \"any\", \"quorum\", \"weighted\", \"not\"",
    );
    for key in ["interval", "recheck"] {
        fails(
            &format!("[[check]]\nkind = \"all\"\nof = [{{ {key} = \"1s\", kind = \"say\" }}]\n"),
            &format!(
                "3:9: [[check]] all/say {key}: is the whole check's alone; move it out of `of`"
            ),
        );
    }
    fails(
        "[[check]]\nkind = \"all\"\nof = [{ weight = 2, kind = \"say\" }]\n",
        "3:9: [[check]] all/say weight: has no effect here; use kind = \"weighted\", or remove it",
    );
    fails(
        "[[check]]\nkind = \"weighted\"\nthreshold = 1\nof = [{ weight = 0, kind = \"say\" }]\n",
        "4:18: [[check]] weighted/say weight: invalid value: integer `0`, expected a nonzero u32",
    );
    fails(
        "[[check]]\nkind = \"all\"\nof = [1]\n",
        "3:6: [[check]] all of: a check is a table, such as { kind = \"tcp\", port = 80 }, and no number",
    );
}

#[test]
fn a_fault_of_the_rule_names_its_key() {
    let one = r#"{ kind = "say", verdict = "up" }"#;
    let table = |keys: &str| format!("[[check]]\n{keys}\n");
    fails(
        &table("kind = \"all\"\nof = []"),
        "3:1: [[check]] all of: must name at least one check",
    );
    fails(
        &table("kind = \"any\""),
        "1:1: [[check]] any: missing field `of`",
    );
    fails(
        &table(&format!("kind = \"not\"\nof = [{one}, {one}]")),
        "3:1: [[check]] not of: must name exactly one check",
    );
    fails(
        &table(&format!("kind = \"quorum\"\nat_least = 2\nof = [{one}]")),
        "3:1: [[check]] quorum at_least: 2 must be between 1 and 1, which is all there is",
    );
    let named = r#"{ name = "x", kind = "say", verdict = "up" }"#;
    fails(
        &table(&format!("kind = \"all\"\nof = [{named}, {named}]")),
        "3:1: [[check]] all of: two of its checks are called x; give each a name of its own",
    );
    fails(
        &table(&format!("kind = \"all\"\nat_least = 2\nof = [{one}]")),
        "3:1: [[check]] all: unknown field `at_least`, expected `of`; besides these every check \
         has `kind`, `name`, `interval`, `timeout`, `recheck`, `severity`",
    );
}

#[test]
fn the_depth_is_bounded() {
    let nested = |depth: usize| {
        let mut check = r#"{ kind = "say", verdict = "up" }"#.to_owned();
        for _ in 1..depth {
            check = format!("{{ kind = \"all\", of = [{check}] }}");
        }
        load_with(
            &format!("[[check]]\nkind = \"all\"\nof = [{check}]\n"),
            &saying(),
        )
    };
    assert!(nested(MAX_DEPTH).is_ok());
    for depth in [MAX_DEPTH + 1, MAX_DEPTH + 20, 1000] {
        let line = nested(depth).unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line}");
    }
    let line = nested(MAX_DEPTH + 1).unwrap_err().to_string();
    assert!(
        line.contains("[[check]] all/all/all/all/all kind = \"all\""),
        "{line}"
    );
    assert!(line.contains("more than 4 deep"), "{line}");
}
