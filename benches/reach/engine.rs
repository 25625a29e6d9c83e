//! What the engine costs: bytes of a review in, bytes of an answer out, nothing around it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use reach::admission;
use reach::inject::snapshot::{ClusterLists, Snapshot};
use reach::presets::services::{Names, Services};
use reach::telemetry::{Outcome, ReviewMetrics};
use serde_json::Value;

use super::fixture::{self, NAMESPACES, PRESETS, SERVICE_NAMESPACES, SERVICES_EACH};
use super::report::{Row, median};

/// Rounds; in each, all cases take turns.
const ROUNDS: usize = 31;
/// Reviews of one case in one round.
const REVIEWS: u32 = 2000;
/// Namespaces whose pods come in turn.
const SPREAD: usize = 2000;

/// Reviews that take turns, what they are answered from, and how.
struct Case<'a> {
    bytes: Vec<Vec<u8>>,
    snapshot: &'a Snapshot,
    outcome: Outcome,
}

/// The reviews that there are.
pub fn reviews() -> Vec<Row> {
    let proxy = fixture::snapshot(fixture::proxy(), 0);
    let as_written = fixture::proxy().into_iter().map(|mut preset| {
        preset["spec"]["noProxyForm"] = "AsWritten".into();
        preset
    });
    let as_written = fixture::snapshot(as_written, 0);
    let with_ca = fixture::snapshot(fixture::proxy().into_iter().chain([fixture::corporate_ca()]), 0);
    // Other lists have come first, and more than are kept.
    let crowded = fixture::snapshot(fixture::proxy(), 0);
    for number in 0..16 {
        let review = fixture::bytes(&fixture::review_with_list(&format!("other-{number}")));
        let _ = admission::review(&review, &crowded, &fixture::metrics()).expect("a known namespace");
    }
    let case =
        |review: &Value, snapshot, outcome| Case { bytes: vec![fixture::bytes(review)], snapshot, outcome };
    let cases = [
        case(&fixture::review(), &proxy, Outcome::injected),
        case(&fixture::review(), &with_ca, Outcome::injected),
        case(&fixture::unmatched(), &proxy, Outcome::skipped),
        case(&fixture::injected(&proxy), &proxy, Outcome::unchanged),
        case(&fixture::review(), &as_written, Outcome::injected),
        case(&fixture::review(), &crowded, Outcome::injected),
    ];
    let names = [
        "engine: review that is injected",
        "engine: review that is injected, with a volume",
        "engine: review that does not match",
        "engine: review that is already injected",
        "engine: review that is injected, no_proxy as written",
        "engine: review that is injected, its own no_proxy not kept",
    ];
    let nanos = cost(&cases);
    let rows = names.iter().zip(&cases).zip(&nanos);
    let mut rows: Vec<Row> = rows
        .map(|((name, case), nanos)| Row::new(format!("{name} ({} B)", case.bytes[0].len()), *nanos, "ns"))
        .collect();
    rows[0] = rows[0].clone().at_most(5000.0);
    let portable = nanos[0] / nanos[4];
    rows.push(
        Row::new("engine: no_proxy in the portable form / as written".to_owned(), portable, "").at_most(1.05),
    );
    rows
}

/// The injected review among few and many presets.
pub fn scale() -> Vec<Row> {
    let snapshot = |presets: usize, other: fn(usize) -> Value| {
        // Numbers from 1: the first preset of a team would have number 0.
        let others = (1..).take(presets - 2).map(other);
        fixture::snapshot(fixture::proxy().into_iter().chain(others), NAMESPACES)
    };
    let counts = [10, 1000, PRESETS];
    let snapshots = counts.map(|presets| snapshot(presets, fixture::other));
    let by_pod = snapshot(PRESETS, fixture::other_by_pod);
    let bytes = vec![fixture::bytes(&fixture::review())];
    let mut cases: Vec<_> = snapshots
        .iter()
        .chain([&by_pod])
        .map(|snapshot| Case { bytes: bytes.clone(), snapshot, outcome: Outcome::injected })
        .collect();
    // As many bodies of few namespaces as of many.
    let few = counts[0] - 2;
    let spread = [few, SPREAD].map(|namespaces| {
        let reviews = (0..SPREAD).map(|number| fixture::selected_by_other(1 + number % namespaces));
        reviews.map(|review| fixture::bytes(&review)).collect()
    });
    for (bytes, snapshot) in spread.into_iter().zip([&snapshots[0], &snapshots[2]]) {
        cases.push(Case { bytes, snapshot, outcome: Outcome::injected });
    }
    let nanos = cost(&cases);
    let mut rows: Vec<Row> = counts
        .iter()
        .zip(&nanos)
        .map(|(presets, nanos)| {
            Row::new(format!("scale: review with {presets} presets, {NAMESPACES} namespaces"), *nanos, "ns")
        })
        .collect();
    rows.push(
        Row::new(format!("scale: {PRESETS} presets / 10 presets"), nanos[2] / nanos[0], "").at_most(1.1),
    );
    rows.push(Row::new(
        format!("scale: {PRESETS} ClusterPodPresets by pod selector / 10 presets"),
        nanos[3] / nanos[0],
        "",
    ));
    rows.push(Row::new(
        format!("scale: reviews of {few} namespaces in turn, each with a preset"),
        nanos[4],
        "ns",
    ));
    rows.push(Row::new(
        format!("scale: reviews of {SPREAD} namespaces in turn, each with a preset"),
        nanos[5],
        "ns",
    ));
    rows.push(Row::new(
        format!("scale: {SPREAD} namespaces in turn / {few} namespaces"),
        nanos[5] / nanos[4],
        "",
    ));
    rows
}

/// The injected review with entries from the cluster: the Services of its namespace among few and many, and those of
/// all namespaces, as far as they fit.
pub fn services() -> Vec<Row> {
    let many = SERVICE_NAMESPACES * SERVICES_EACH;
    let started = Instant::now();
    let known = known_services(SERVICE_NAMESPACES - 1);
    let made = started.elapsed().as_secs_f64() * 1e3;
    let without = fixture::snapshot(fixture::proxy(), SERVICE_NAMESPACES);
    let snapshots = [
        with_services(&known_services(0), "Services"),
        with_services(&known, "Services"),
        with_services(&known, "AllServices"),
    ];
    let bytes = vec![fixture::bytes(&fixture::review())];
    let cases: Vec<_> = std::iter::once(&without)
        .chain(&snapshots)
        .map(|snapshot| Case { bytes: bytes.clone(), snapshot, outcome: Outcome::injected })
        .collect();
    let nanos = cost(&cases);
    let all = known.all();
    vec![
        Row::new(
            format!("scale: lists of {many} Services in {SERVICE_NAMESPACES} namespaces, from nothing"),
            made,
            "ms",
        ),
        Row::new("scale: review without noProxyFrom", nanos[0], "ns"),
        Row::new(format!("scale: review with {SERVICES_EACH} Services of its namespace"), nanos[1], "ns"),
        Row::new(
            format!("scale: {many} Services in {SERVICE_NAMESPACES} namespaces / {SERVICES_EACH} Services"),
            nanos[2] / nanos[1],
            "",
        )
        .at_most(1.2),
        Row::new(format!("scale: review with AllServices ({} of {many})", all.taken), nanos[3], "ns"),
    ]
}

fn known_services(others: usize) -> Services {
    let mut names = Names::new();
    for (namespace, name) in fixture::services(others) {
        names.entry(namespace.into()).or_default().insert(name.into());
    }
    let mut known = Services::default();
    for namespace in known.replace(names) {
        known.update(&namespace);
    }
    known
}

fn with_services(known: &Services, source: &str) -> Snapshot {
    let lists = known.made().map(|(namespace, made)| (namespace, Arc::clone(&made.list)));
    let all =
        ClusterLists { all_services: Arc::unwrap_or_clone(known.all().list), ..ClusterLists::default() };
    fixture::snapshot(fixture::proxy_from(source), SERVICE_NAMESPACES)
        .with_services(lists)
        .with_derived(Arc::new(all))
}

/// The median time of each case, in nanoseconds.
fn cost(cases: &[Case<'_>]) -> Vec<f64> {
    let metrics = fixture::metrics();
    for case in cases {
        for bytes in &case.bytes {
            let answer = admission::review(bytes, case.snapshot, &metrics).expect("a known namespace");
            assert_eq!(answer.outcome, case.outcome, "the case is not what it says");
        }
    }
    let mut times = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            times.push(round(case, &metrics));
        }
    }
    times.into_iter().map(median).collect()
}

fn round(case: &Case<'_>, metrics: &ReviewMetrics) -> f64 {
    let start = Instant::now();
    for bytes in case.bytes.iter().cycle().take(REVIEWS as usize) {
        let _ = black_box(admission::review(black_box(bytes), case.snapshot, metrics));
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(REVIEWS)
}
