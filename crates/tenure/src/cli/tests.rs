use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_whole() {
    Cli::command().debug_assert();
}

#[test]
fn what_comes_later_is_absent_and_not_stubbed() {
    let told = Cli::command().render_long_help().to_string();
    for absent in ["top", "backup", "restore", "gaps"] {
        assert!(!told.lines().any(|l| l.trim_start().starts_with(absent)), "{absent}");
    }
}

#[test]
fn every_command_says_what_it_does() {
    fn walk(command: &clap::Command) {
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            walk(sub);
        }
    }
    walk(&Cli::command());
}

#[test]
fn server_and_output_may_stand_anywhere() {
    for words in [["tenure", "--output", "json", "flow", "ls"], ["tenure", "flow", "ls", "--output", "json"]] {
        assert_eq!(Cli::try_parse_from(words).unwrap().ask.output, Format::Json);
    }
}
