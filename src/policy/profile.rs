//! What must be known of an API beforehand to read what its responses say.
//!
//! The reader in [`hints`](super::hints) understands what many APIs have in common. Where one
//! differs (a unit that nothing in the value tells, fields of its own, a refusal that looks like a
//! success) its profile says so, as data: no code names a vendor. The profile of an API that is
//! not known, [`GENERIC`], says nothing. Profiles are written as TOML and compiled to this form
//! before the first request, so that the reader only compares.

use std::borrow::Cow;
use std::time::Duration;

use super::outcome::Reach;

/// How one API says what it has to say about limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name, such as `github`.
    pub name: Cow<'static, str>,
    /// Unit of plain numbers in `Retry-After`; seconds if not told (RFC 9110 10.2.3).
    pub retry_after_unit: Option<Unit>,
    /// Unit of plain numbers in fields that name a reset; by magnitude if not told.
    pub reset_unit: Option<Unit>,
    /// Whether the length of an exhausted quota's window stands for a reset that is not told: the
    /// wait is then an upper bound.
    pub window_is_wait: bool,
    /// Whether a request may have been processed although it was refused.
    pub refused_may_be_processed: bool,
    /// Fields that are read in their own way; the first that matches a name decides.
    pub fields: Vec<Field>,
    /// What else makes a response a refusal, or something other than its status says; the first
    /// that matches decides.
    pub signatures: Vec<Signature>,
    /// Quotas that stand in the body.
    pub body_quotas: Vec<BodyQuota>,
    /// Addresses of the API in its own bodies.
    pub links: Vec<LinkPath>,
    /// Hosts of its origins, lower case; a leading `*.` stands for any labels.
    pub origins: Vec<Box<str>>,
}

/// The profile of an API of which nothing is known.
pub static GENERIC: Profile = Profile::new(Cow::Borrowed("generic"));

impl Profile {
    /// A profile that says nothing.
    pub const fn new(name: Cow<'static, str>) -> Self {
        Self {
            name,
            retry_after_unit: None,
            reset_unit: None,
            window_is_wait: false,
            refused_may_be_processed: false,
            fields: Vec::new(),
            signatures: Vec::new(),
            body_quotas: Vec::new(),
            links: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// The same with the units that an operator knows better.
    #[must_use]
    pub fn with_units(&self, retry_after: Option<Unit>, reset: Option<Unit>) -> Self {
        Self {
            retry_after_unit: retry_after.or(self.retry_after_unit),
            reset_unit: reset.or(self.reset_unit),
            ..self.clone()
        }
    }

    /// How a field of this name (lower case) is read, if it is in a way of its own.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.matches(name))
    }

    /// Whether a response of that status can be recognised by its fields alone.
    pub fn recognises(&self, status: u16) -> bool {
        let mut signatures = self.signatures.iter();
        signatures.any(|signature| !signature.reads_body() && signature.is_for(status))
    }

    /// Whether one of the API's own hosts (lower case) is meant.
    pub fn has_origin(&self, host: &str) -> bool {
        self.origins.iter().any(|origin| match origin.strip_prefix('*') {
            Some(end) => host.strip_suffix(end).is_some_and(|labels| !labels.is_empty()),
            None => **origin == *host,
        })
    }

    /// Whether the body of a response with this status can change what it means. An adapter that
    /// could hand over the first [`BODY_PREFIX`](super::hints::BODY_PREFIX) bytes asks this before
    /// it holds anything back.
    pub fn wants_body(&self, status: u16) -> bool {
        let refused = matches!(status, 400 | 403 | 420 | 429 | 503);
        let by_signature =
            |signature: &Signature| signature.reads_body() && signature.is_for(status);
        refused
            || self.signatures.iter().any(by_signature)
            || self.body_quotas.iter().any(|quota| quota.statuses.contains(status))
    }
}

/// Paths to addresses at most; one bit for each says how far it was followed.
pub const LINK_PATHS_MAX: usize = 64;

/// Where bodies have an address that clients follow, from the root of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPath {
    /// From the outside to the inside; never empty.
    pub steps: Vec<Step>,
    /// What the address is.
    pub kind: LinkKind,
}

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The member of that name.
    Key(Box<str>),
    /// Every element of a list.
    Each,
}

/// What an address in a body is to the clients that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A URL of a further page.
    Url,
    /// The same, or its path alone, which clients resolve as RFC 3986 has it.
    UrlOrPath,
    /// Where the API goes on being spoken to; a host of the profile's own origins, too.
    Session,
}

/// Unit of a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
}

impl Unit {
    /// As it is written in configurations and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Millis => "ms",
            Self::Seconds => "s",
            Self::Minutes => "min",
        }
    }
}

/// Some statuses; empty stands for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub Vec<(u16, u16)>);

impl Statuses {
    /// Whether it has this status.
    pub fn contains(&self, status: u16) -> bool {
        let Self(ranges) = self;
        ranges.is_empty() || ranges.iter().any(|&(first, last)| (first..=last).contains(&status))
    }
}

/// One field of an API's own, or one that it writes in its own way.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Lower case; one `*` stands for any number of characters, and what it stands for is the
    /// name of the quota.
    pub name: Box<str>,
    /// The quota that it tells of; empty for the only one.
    pub quota: Box<str>,
    /// What stands in it.
    pub form: Form,
}

impl Field {
    /// Whether it is the field of that name.
    pub fn matches(&self, name: &str) -> bool {
        match self.name.split_once('*') {
            None => *self.name == *name,
            Some(_) => self.star(name).is_some(),
        }
    }

    /// What the star of its name stands for.
    pub fn star<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (start, end) = self.name.split_once('*')?;
        name.strip_prefix(start)?.strip_suffix(end)
    }
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// One member of a quota.
    Part(Part),
    /// `39/40`, or `name=18/5000; other=17/250`: used, and the limit.
    UsedOfLimit,
    /// `total=100; remaining=99; resets=41`.
    KeyValues,
    /// `200,2000`, one number for each window, or `20:1,100:120`, number and seconds.
    List {
        /// What the numbers are.
        part: Part,
        /// The windows, if the field does not name them.
        windows: Vec<Duration>,
        /// Whether the windows begin at multiples of their length since midnight UTC, so that
        /// the time of day tells the reset.
        aligned: bool,
    },
    /// A JSON object, or several.
    Json {
        /// Keys of shares in percent; the largest decides.
        percent: Vec<Box<str>>,
        /// Keys of waits, with their units; zero says nothing.
        wait: Vec<(Box<str>, Unit)>,
    },
    /// `60:error;transaction:organization, 2700:default`: seconds and what is refused meanwhile.
    Categories,
    /// Requests per second; a refusal is over after one of them.
    PerSecond,
    /// A wait.
    Wait(Unit),
    /// What the word of the response covers; only shown.
    Scope,
    /// Nothing of interest, in spite of its name.
    Ignored,
}

/// A member of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What there is in a window.
    Limit,
    /// What is left.
    Remaining,
    /// What is used up.
    Used,
    /// When it is renewed, in any form; the unit is of plain numbers.
    Reset(Option<Unit>),
    /// The length of the window.
    Window(Unit),
}

/// Signs by which a response is recognised, and what it then means. All signs must be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// The statuses that it may have.
    pub statuses: Statuses,
    /// Fields that must be there.
    pub fields: Vec<FieldSign>,
    /// Keys of the body with one of some values.
    pub codes: Vec<CodeSign>,
    /// Words of which one must stand in the body; capital letters do not matter.
    pub texts: Vec<Box<str>>,
    /// What the response means then; `None` leaves that to the generic rules.
    pub answer: Option<Answer>,
    /// The wait, if no field states one.
    pub wait: Option<WaitRule>,
    /// What it covers, in the API's words; only shown.
    pub scope: Option<Box<str>>,
    /// How far its wait reaches; `None` leaves that to the generic rules.
    pub reach: Option<Reach>,
}

impl Signature {
    /// Whether a response of that status can have it.
    pub fn is_for(&self, status: u16) -> bool {
        self.statuses.contains(status)
    }

    /// Whether it cannot be recognised without the body.
    pub fn reads_body(&self) -> bool {
        !(self.codes.is_empty() && self.texts.is_empty())
    }
}

/// A field that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSign {
    /// Lower case.
    pub name: Box<str>,
    /// Part of its value, lower case; empty for any value, and the whole of it after `=`.
    pub contains: Box<str>,
}

/// `"error": "ratelimited"` or `<Code>SlowDown</Code>`: a key and the values that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeSign {
    /// As it is written.
    pub key: Box<str>,
    /// As they are written, numbers too.
    pub values: Vec<Box<str>>,
}

/// The five words for what a response means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Served.
    Ok,
    /// Refused by a limit.
    RateLimited,
    /// Failed, and may not the next time.
    Transient,
    /// Failed, and will the next time.
    Permanent,
    /// The credential does not do.
    Auth,
}

impl Answer {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::RateLimited, Self::Transient, Self::Permanent, Self::Auth];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RateLimited => "rate_limited",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Auth => "auth",
        }
    }
}

/// How long to wait after a refusal that names no time in a field.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitRule {
    /// As documented.
    Fixed(Duration),
    /// Until the quota that is told is renewed, whatever is left of it.
    Reset,
    /// Nothing is known, and what other fields seem to say is not it.
    Unknown,
    /// The number that follows these words in the body.
    After {
        /// The words.
        words: Box<str>,
        /// The number's unit; `None` is an epoch in seconds.
        unit: Option<Unit>,
    },
    /// Until a bucket is full enough: what is missing, by the rate per second.
    Bucket {
        /// Stands before what the request costs.
        need: Box<str>,
        /// Stands before what there is.
        available: Box<str>,
        /// Stands before what is added in a second.
        rate: Box<str>,
    },
}

/// A quota whose members stand behind words of the body, such as `"maximumAvailable"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BodyQuota {
    /// The statuses of responses that may have it.
    pub statuses: Statuses,
    /// Its name.
    pub quota: Box<str>,
    /// Stands before the limit.
    pub limit: Option<Box<str>>,
    /// Stands before what is left.
    pub remaining: Box<str>,
    /// Stands before the seconds until it is renewed.
    pub reset: Option<Box<str>>,
}
