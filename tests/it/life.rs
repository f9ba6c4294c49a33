//! The happy path.

use forbear::demo::api::FakeApi;
use forbear::demo::settings::ApiSettings;

use crate::support::forbear::Forbear;
use crate::support::raw::RawClient;

#[tokio::test]
async fn a_request_is_forwarded_without_its_prefix_and_answered_with_its_story() {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let forbear = Forbear::start(&format!("[upstreams.api]\nurl = \"{}\"\n", api.url()));
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(b"GET /api/items/7?a=%20b HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert_eq!(response.field("forbear-decision"), Some("pass"));
    assert_eq!(response.field("forbear-upstream"), Some("api"));
    assert_eq!(
        api.log().first().map(|record| record.target.clone()),
        Some("/items/7?a=%20b".into())
    );
}
