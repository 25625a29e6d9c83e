//! What a second processor adds: the webhook's handler on one thread and on two, as two connections have it, which share the
//! presets and what they make of them. TLS and sockets share nothing, and clients would need processors too.
//! And two handlers that share nothing, on a thread each: what these two processors have to give.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::service::Service;
use reach::admission::{Admission, PATH};
use reach::presets::Presets;

use super::fixture;
use super::report::{Row, median};

/// Rounds; in each, all of them take turns.
const ROUNDS: usize = 21;
/// How long a round takes.
const ROUND: Duration = Duration::from_millis(200);

/// All of them.
pub fn measure() -> Vec<Row> {
    let service = || {
        let presets = Arc::new(Presets::default());
        presets.publish(fixture::snapshot(fixture::proxy(), 0));
        Admission::new(presets, fixture::metrics()).service()
    };
    let services = &[service(), service()];
    let body = &Bytes::from(fixture::bytes(&fixture::review()));
    // A thread for each of these.
    let rate = |of_threads: &[usize]| {
        let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let start = Instant::now();
        thread::scope(|scope| {
            for &service in of_threads {
                // As each connection has them.
                let (service, body) = (services[service].clone(), Bytes::copy_from_slice(body));
                let (stop, answered) = (&stop, &answered);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    let count = runtime.block_on(async {
                        let mut count = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let request = Request::post(PATH)
                                .header("content-type", "application/json")
                                .body(Full::new(body.clone()))
                                .expect("a request");
                            let answer = service.call(request).await.unwrap_or_else(|error| match error {});
                            assert!(answer.status().is_success(), "{}", answer.status());
                            count += 1;
                        }
                        count
                    });
                    answered.fetch_add(count, Ordering::Relaxed);
                });
            }
            thread::sleep(ROUND);
            stop.store(true, Ordering::Relaxed);
        });
        answered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
    };
    let (mut one, mut two, mut apart) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(rate(&[0]));
        two.push(rate(&[0, 0]));
        apart.push(rate(&[0, 1]));
    }
    let (one, two, apart) = (median(one), median(two), median(apart));
    vec![
        Row::new("cores: reviews answered on one thread", one, "/s"),
        Row::new("cores: reviews answered on two threads", two, "/s"),
        Row::new("cores: two threads / one", two / one, "").at_least(1.8),
        Row::new("cores: two threads that share nothing / one", apart / one, ""),
    ]
}
