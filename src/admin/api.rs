//! The admin API's routes.
