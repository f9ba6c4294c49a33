//! What a request spends of which quota, as far as its method and path tell: by the profile of the
//! API, compiled once.

use http::Method;

use super::route::Pattern;
use crate::config::settings::UpstreamConfig;
use crate::policy::line::{BucketId, RouteId};
use crate::policy::upstream::UpstreamPolicy;

/// Buckets and costs of one upstream; most have none.
#[derive(Debug, Default)]
pub struct Spending {
    buckets: Vec<(Pattern, BucketId)>,
    costs: Vec<(Pattern, u32)>,
}

impl Spending {
    /// Asks the policy for the ids of the buckets that the profile names.
    pub fn new(config: &UpstreamConfig, policy: &mut UpstreamPolicy) -> Self {
        let buckets = config.buckets.iter().filter_map(|(matcher, name)| {
            Some((Pattern::new(matcher), policy.bucket_named(name)?))
        });
        let costs = config.costs.iter().map(|(matcher, units)| (Pattern::new(matcher), *units));
        Self { buckets: buckets.collect(), costs: costs.collect() }
    }

    /// The bucket of a request; that of its route where the profile names none.
    pub fn bucket(&self, method: &Method, path: &str, route: RouteId) -> BucketId {
        let named = self.buckets.iter().find(|(pattern, _)| pattern.matches(method, path));
        named.map_or(BucketId::Route(route), |(_, bucket)| *bucket)
    }

    /// What it costs; 1 where the profile does not say.
    pub fn cost(&self, method: &Method, path: &str) -> u32 {
        let told = self.costs.iter().find(|(pattern, _)| pattern.matches(method, path));
        told.map_or(1, |(_, units)| *units)
    }
}

/// Longer segments of a path are ids, whatever they are made of.
const WORD_MAX: usize = 24;

/// Requests of one shape differ in ids only: equal methods, and equal paths once every segment that
/// looks like an id is left out. APIs that name buckets in their answers have one for each shape.
pub fn shape(method: &Method, path: &str) -> u64 {
    // FNV-1a: a few operations for each byte, and a collision only mixes up two buckets.
    const PRIME: u64 = 0x0100_0000_01b3;
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let hash = method.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    path.split('/').filter(|segment| !segment.is_empty()).fold(hash, |hash, segment| {
        let is_id = segment.len() > WORD_MAX || segment.bytes().any(|byte| byte.is_ascii_digit());
        // `v1` and `2.0` are versions, not ids.
        let is_version = segment.len() <= 4;
        let segment = if is_id && !is_version { "*" } else { segment };
        segment.bytes().fold(mix(hash, b'/'), mix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_differ_in_ids_only_have_one_shape() {
        let shape = |path| shape(&Method::GET, path);
        assert_eq!(shape("/channels/123456789/messages"), shape("/channels/987654321/messages"));
        assert_eq!(shape("/a//b"), shape("/a/b"));
        assert_ne!(shape("/channels/123456789/messages"), shape("/channels/123456789/pins"));
        assert_ne!(shape("/v1/users"), shape("/v2/users"));
    }

    #[test]
    fn requests_of_different_methods_have_different_shapes() {
        assert_ne!(shape(&Method::GET, "/a"), shape(&Method::POST, "/a"));
    }
}
