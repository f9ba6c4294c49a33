//! What a bug in one exchange does: one answer, one count, and nothing to anybody else.

use http_body_util::BodyExt;

use super::*;

async fn text(response: Response<DownBody>) -> String {
    let body = response.into_body().collect().await.map(|body| body.to_bytes());
    String::from_utf8(body.unwrap_or_default().to_vec()).unwrap()
}

fn fine() -> Response<DownBody> {
    Response::new(DownBody::untold(bytes::Bytes::from_static(b"fine")))
}

fn caught<F: Future<Output = Response<DownBody>>>(whole: F, metrics: &Arc<Metrics>) -> Caught<F> {
    Caught { whole, metrics: Arc::clone(metrics) }
}

#[tokio::test]
async fn a_panic_in_one_exchange_answers_that_exchange_and_no_other() {
    let metrics = Arc::new(Metrics::new());
    let at_once = Box::pin(async { panic!("a bug, on purpose") });
    let later = Box::pin(async {
        tokio::task::yield_now().await;
        panic!("another bug, on purpose")
    });
    let neighbour = Box::pin(async {
        tokio::task::yield_now().await;
        fine()
    });
    let (first, second, third) = tokio::join!(
        caught(at_once, &metrics),
        caught(later, &metrics),
        caught(neighbour, &metrics)
    );
    for response in [first, second] {
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let media = &response.headers()[http::header::CONTENT_TYPE];
        assert_eq!(media, "application/problem+json");
        let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!((&body["code"], &body["status"]), (&"internal".into(), &500.into()));
    }
    assert_eq!((third.status(), text(third).await), (StatusCode::OK, "fine".to_owned()));
    assert_eq!(metrics.panics.get(), 2);
}

#[tokio::test]
async fn what_an_exchange_held_is_given_back_when_it_panics() {
    let held = Arc::new(());
    let mine = held.clone();
    let exchange = Box::pin(async move {
        let _mine = mine;
        tokio::task::yield_now().await;
        panic!("a bug, on purpose")
    });
    caught(exchange, &Arc::new(Metrics::new())).await;
    assert_eq!(Arc::strong_count(&held), 1);
}
