//! The programs, how they are started, and what they must say.

use berth_wire::report::Exit;

use crate::stage::{Ran, Stage};

/// One of the corpus.
pub struct Program {
    pub name: &'static str,
    argv: &'static [&'static str],
    /// Whether the stack image has what it needs.
    pub is_in_the_stack: bool,
    /// What is among the lines that it prints, each of them whole.
    says: &'static [&'static str],
}

const fn app(name: &'static str, argv: &'static [&'static str], says: &'static [&'static str]) -> Program {
    Program { name, argv, is_in_the_stack: false, says }
}

const fn of_the_stack(program: Program) -> Program {
    Program { is_in_the_stack: true, ..program }
}

/// All of them. The build is the first: what it installs is a layer that others run from.
pub const ALL: &[Program] = &[
    of_the_stack(app("apt", &["sh", "/corpus/apt.sh"], &["apt: all done as 0"])),
    of_the_stack(app("python", &["python3", "/corpus/python.py"], &["python: all done as 1000"])),
    of_the_stack(app("nginx", &["sh", "/corpus/nginx.sh"], &["nginx: all done as 1000"])),
    of_the_stack(app("redis", &["sh", "/corpus/redis.sh"], &["goodbye", "redis: all done as 1000"])),
    of_the_stack(app("git", &["sh", "/corpus/git.sh"], &["21", "git: all done as 1000"])),
    app("node", &["node", "/corpus/node.js"], &["node: all done as 1000"]),
    app("ruby", &["ruby", "/corpus/ruby.rb"], &["ruby: all done as 1000"]),
    app("php", &["php", "/corpus/php.php"], &["php: all done as 1000"]),
    app("java", &["java", "-XX:+UseG1GC", "-Xmx192m", "/corpus/Main.java"], &["java: all done as 1000"]),
    app("go", &["sh", "/corpus/go.sh"], &["go: all done as 1000"]),
    app("postgres", &["sh", "/corpus/postgres.sh"], &["104000|t", "postgres: all done as 1000"]),
];

/// Runs it; it must end well and say what it should.
pub async fn check(stage: &Stage, program: &Program) -> Result<(), String> {
    let argv = program.argv.iter().map(|word| (*word).to_owned()).collect();
    let Ran { exit, output } = match program.name {
        "apt" => stage.build(argv).await?,
        _ => stage.run(argv).await?,
    };
    let missing = program.says.iter().find(|line| !output.lines().any(|said| said == **line));
    match (exit, missing) {
        (Exit::Code(0), None) => Ok(()),
        (exit, missing) => Err(format!("it ended with {exit:?}, without {missing:?}, and said:\n{output}")),
    }
}
