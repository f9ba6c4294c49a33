//! That the story of an exchange leaves no time out.
