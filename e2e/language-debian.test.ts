/** The language on a distribution's base image: its shell, users, tools and file system are what Dockerfiles are written for. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openRepositories, type Repositories } from "../src/source/git-fixture.ts";
import { type LoopbackServer, startServer } from "../src/source/source-fixture.ts";
import { filesBelow, readImage, readLayout } from "./support/image.ts";
import { debianLayout, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
const debian = ["--build-context", `debian:bookworm=oci-layout://${debianLayout}:bookworm`];
let web: LoopbackServer;
let repositories: Repositories;

before(async () => {
	web = await startServer((request, response) => {
		const { authorization = "" } = request.headers;
		const wanted = { "/token": "Bearer t0ken", "/header": "Custom h3ader", "/open": "" }[request.url ?? ""];
		response.writeHead(wanted === undefined ? 404 : wanted === "" || authorization === wanted ? 200 : 401);
		response.end(`from ${request.url}`);
	});
	repositories = openRepositories();
});

after(async () => {
	bench[Symbol.dispose]();
	await web[Symbol.asyncDispose]();
	await repositories[Symbol.asyncDispose]();
});

const read = (dir: string, path: string): string => readFileSync(join(dir, path), "utf8");
const sha256 = (data: string): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;

test("every instruction of an image's configuration", async () => {
	const context = bench.context({
		Dockerfile: `# escape=\`
ARG BASE=debian:bookworm \`
    UNUSED=x
FROM --platform=$TARGETPLATFORM $BASE AS base
LABEL one="a b" two=c \`
      three="\${UNDEFINED:-d}"
MAINTAINER somebody
ENV A=1 B="two words" C=$A
ENV A=2 PATH=/opt/bin:$PATH
ARG D=default
ARG E
ENV F=\${D:+set} G=\${E:-unset} H=\${B#two*} I=\${B/words/x}
WORKDIR /srv
USER games:staff
WORKDIR sub
RUN id -un > who && id -gn >> who && stat -c '%U:%G' . >> who && echo $A $C $D $F $G $H $I >> who
USER root
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN [[ $0 == /bin/bash ]] && echo bash > /shell
VOLUME /data /more
EXPOSE 80 8000-8002/udp
STOPSIGNAL 9
HEALTHCHECK --interval=1m --timeout=3s --start-period=10s --start-interval=1s --retries=4 CMD ["true"]
ONBUILD RUN echo later
ENTRYPOINT exec echo "$A"
CMD ["x", "y"]
`,
	});
	const archive = bench.path("config.tar");
	await bench.build([...debian, "--build-arg", "E=given", "-o", `type=oci,dest=${archive}`, context]);
	const image = readImage(archive, bench.dir);
	const { config, history, author } = image.config;
	assert.equal(author, "somebody");
	assert.deepEqual(config, {
		User: "root",
		ExposedPorts: { "80/tcp": {}, "8000/udp": {}, "8001/udp": {}, "8002/udp": {} },
		Env: [
			"PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"A=2",
			"B=two words",
			"C=",
			"F=set",
			"G=given",
			"H= words",
			"I=two x",
		],
		Entrypoint: ["/bin/bash", "-eo", "pipefail", "-c", 'exec echo "$A"'],
		Cmd: ["x", "y"],
		Healthcheck: {
			Test: ["CMD", "true"],
			Interval: 60e9,
			Timeout: 3e9,
			StartPeriod: 10e9,
			StartInterval: 1e9,
			Retries: 4,
		},
		Volumes: { "/data": {}, "/more": {} },
		WorkingDir: "/srv/sub",
		Labels: { one: "a b", two: "c", three: "d" },
		OnBuild: ["RUN echo later"],
		StopSignal: "9",
		Shell: ["/bin/bash", "-eo", "pipefail", "-c"],
		ArgsEscaped: true,
	});
	const steps = image.manifest.layers.length - 1;
	assert.equal(history.filter((each: { empty_layer?: boolean }) => !each.empty_layer).length - 1, steps);
	assert.equal(
		image.layerFile(3, "srv/sub/who"),
		"games\nstaff\ngames:staff\n2 default set given words two x\n",
	);
	assert.equal(image.layerFile(4, "shell"), "bash\n");
});

test("RUN: heredocs, exec form, every kind of mount, network and security modes", async () => {
	const context = bench.context({
		Dockerfile: `FROM debian:bookworm AS tools
RUN mkdir /t && echo tool > /t/file

FROM debian:bookworm AS b
WORKDIR /out
RUN <<one cat > inputs; <<-two cat >> inputs
from one: $HOME
one
	from two
	two
RUN <<perl
#!/usr/bin/perl
open(my $f, ">", "perl"); print $f "by perl\\n";
perl
RUN ["/bin/sh", "-c", "echo $0 $HOME > exec", "name"]
RUN --mount=type=cache,target=/cache,id=shared,uid=33,gid=50,mode=0750,sharing=locked stat -c '%u %g %a' /cache > cache && echo kept > /cache/f
RUN --mount=type=cache,target=/other,id=shared,uid=33,gid=50,mode=0750,readonly cat /other/f >> cache && ! touch /other/g
RUN --mount=type=cache,target=/seeded,from=tools,source=/t cat /seeded/file >> cache
RUN --mount=from=tools,source=/t,target=/t --mount=target=/ctx,rw cat /t/file /ctx/f > bind && echo changed > /ctx/f && ! touch /t/x
RUN --mount=target=f,source=f cat f >> bind
RUN --mount=type=tmpfs,target=/mem,size=1m stat -f -c %T /mem > tmpfs && ! head -c 2m /dev/zero > /mem/f
RUN --mount=type=secret,id=key,target=/run/key,mode=0440,uid=33,gid=50 --mount=type=secret,id=key,env=KEY --mount=type=secret,id=none \
    stat -c '%u %g %a' /run/key > secret && cat /run/key >> secret && echo "$KEY" >> secret && test ! -e /run/secrets/none
RUN --mount=type=ssh,id=agent,target=/agent,uid=33,mode=0660 stat -c '%F %u %a' /agent > ssh && test "$SSH_AUTH_SOCK" = /agent
RUN --network=none grep -c : /proc/net/dev > network
RUN --security=insecure grep CapEff /proc/self/status > insecure
RUN --security=sandbox grep CapEff /proc/self/status > sandbox
RUN test ! -e /cache -a ! -e /run/key && rm -rf /ctx /t /mem
FROM scratch
COPY --from=b /out /
`,
		f: "context\n",
	});
	const { agent } = await repositories.serveSsh();
	const out = bench.path("run");
	await bench.build(
		[
			...debian,
			...["--secret", "id=key,env=SECRET", "--ssh", `agent=${agent}`, "--allow", "security.insecure"],
			...["-o", out, context],
		],
		{ env: { SECRET: "s3cret" } },
	);
	const seen = Object.fromEntries(filesBelow(out).map((path) => [path, read(out, path)]));
	assert.match(seen["insecure"] ?? "", /^CapEff:\t0000/);
	assert.notEqual(seen["insecure"], seen["sandbox"]);
	assert.deepEqual(
		{ ...seen, insecure: "", sandbox: "" },
		{
			bind: "tool\ncontext\ncontext\n",
			cache: "33 50 750\nkept\ntool\n",
			exec: "name $HOME\n".replace("$HOME", "/root"),
			inputs: "from one: $HOME\nfrom two\n".replace("$HOME", "/root"),
			insecure: "",
			network: "1\n",
			perl: "by perl\n",
			sandbox: "",
			secret: "33 50 440\ns3crets3cret\n",
			ssh: "socket 33 660\n",
			tmpfs: "tmpfs\n",
		},
	);
	assert.equal(read(context, "f"), "context\n", "a writable mount of the context never reaches the client");
});

test("COPY and ADD: owners by name, modes in letters, archives of every compression, parents, excludes, links", async () => {
	const files: Readonly<Record<string, string>> = {
		"src/a/one.txt": "1",
		"src/a/two.md": "2",
		"src/b/deep/one.txt": "3",
		"src/run.sh": "#!/bin/sh\n",
		Dockerfile: `FROM debian:bookworm AS b
RUN useradd -u 1234 -U maker && ln -s /srv /link && echo old > /srv/old && rm -rf /var/lib/dpkg
COPY --chown=maker src/a/one.txt /owned/by-name
COPY --chown=maker:games src/a/one.txt /owned/by-names
COPY --chown=77 src/a/one.txt /owned/by-id
COPY --chmod=u=rwX,go=rX src /modes/
COPY --chmod=a-w src/run.sh /modes/readonly
COPY --parents --exclude=**/*.md src/./*/ src/b/**/one.txt /parents/
COPY --link --chown=5:6 src/a /linked/
COPY src/a/one.txt /link/
COPY --from=debian:bookworm /etc/debian_version /etc/hostname* /from-image/
ENV WHO=made
WORKDIR /relative
COPY src/a/one.txt src/a/t*.md ./
ADD a.tar b.tar.gz c.tar.bz2 d.tar.xz e.tar.zst /unpacked/
ADD --unpack=false --chown=maker a.tar /packed/
ADD --chmod=600 --exclude=*.md src/a /added/
COPY --chown=games <<"script" <<data /documents/
echo $HOME
script
$WHO
data
FROM b AS listed
RUN cd / && find owned modes parents linked relative unpacked packed added documents from-image srv link -printf '%p %y %u %g %m\\n' | LC_ALL=C sort > /list
FROM scratch
COPY --from=listed /list /
COPY --from=b /documents /documents
`,
	};
	const context = bench.context(files);
	const tar = (name: string, ...flags: readonly string[]): string =>
		tool("tar", [
			...[
				"-C",
				join(context, "src"),
				"--transform",
				`s,^,${name}/,`,
				"--owner=12",
				"--group=34",
				"--mode=0640",
			],
			...[...flags, "-cf", join(context, name), "run.sh"],
		]);
	tar("a.tar");
	tar("b.tar.gz", "-z");
	tar("c.tar.bz2", "-j");
	tar("d.tar.xz", "-J");
	tar("e.tar.zst", "--zstd");
	const out = bench.path("copied");
	await bench.build([...debian, "-o", out, context]);
	// As BuildKit builds it.
	assert.deepEqual(read(out, "list").trim().split("\n"), [
		"added d root root 600",
		"added/one.txt f root root 600",
		"documents d games games 755",
		"documents/data f games games 644",
		"documents/script f games games 644",
		"from-image d root root 755",
		"from-image/debian_version f root root 644",
		"link l root root 777",
		"linked d games disk 755",
		"linked/one.txt f games disk 644",
		"linked/two.md f games disk 644",
		"modes d root root 755",
		"modes/a d root root 755",
		"modes/a/one.txt f root root 644",
		"modes/a/two.md f root root 644",
		"modes/b d root root 755",
		"modes/b/deep d root root 755",
		"modes/b/deep/one.txt f root root 644",
		"modes/readonly f root root 555",
		"modes/run.sh f root root 755",
		"owned d maker maker 755",
		"owned/by-id f 77 77 644",
		"owned/by-name f maker maker 644",
		"owned/by-names f maker games 644",
		"packed d maker maker 755",
		"packed/a.tar f maker maker 644",
		"parents d root root 755",
		"parents/a d root root 755",
		"parents/a/one.txt f root root 644",
		"parents/b d root root 755",
		"parents/b/deep d root root 755",
		"parents/b/deep/one.txt f root root 644",
		"parents/run.sh f root root 755",
		"parents/src d root root 755",
		"parents/src/b d root root 755",
		"parents/src/b/deep d root root 755",
		"parents/src/b/deep/one.txt f root root 644",
		"relative d root root 755",
		"relative/one.txt f root root 644",
		"relative/two.md f root root 644",
		"srv d root root 755",
		"srv/old f root root 644",
		"srv/one.txt f root root 644",
		"unpacked d root root 755",
		"unpacked/a.tar d root root 755",
		"unpacked/a.tar/run.sh f 12 backup 640",
		"unpacked/b.tar.gz d root root 755",
		"unpacked/b.tar.gz/run.sh f 12 backup 640",
		"unpacked/c.tar.bz2 d root root 755",
		"unpacked/c.tar.bz2/run.sh f 12 backup 640",
		"unpacked/d.tar.xz d root root 755",
		"unpacked/d.tar.xz/run.sh f 12 backup 640",
		"unpacked/e.tar.zst d root root 755",
		"unpacked/e.tar.zst/run.sh f 12 backup 640",
	]);
	assert.equal(read(out, "documents/script"), "echo $HOME\n");
	assert.equal(read(out, "documents/data"), "made\n");
});

test("a base image's ONBUILD triggers run first, once, and are gone in the child", async () => {
	const layout = bench.path("parent");
	const parent = bench.context({
		Dockerfile: `FROM debian:bookworm
ONBUILD ARG WHO=nobody
ONBUILD COPY f /from/
ONBUILD RUN echo "$WHO" > /who
`,
	});
	await bench.build([...debian, "-t", "parent:1", "-o", `type=oci,tar=false,dest=${layout}`, parent]);
	assert.equal(readLayout(layout).config.config.OnBuild.length, 3);
	const context = bench.context({
		Dockerfile: "FROM parent AS child\nRUN cat /from/f /who > /both\nFROM scratch\nCOPY --from=0 /both /\n",
		f: "f\n",
	});
	const base = ["--build-context", `parent=oci-layout://${layout}:1`];
	const child = bench.path("child.tar");
	const args = [...base, "--build-arg", "WHO=me", "--target", "child", "-o", `type=oci,dest=${child}`];
	const built = await bench.build([...args, context]);
	assert.match(built.stderr, /ONBUILD COPY f \/from\/\n/);
	const { config } = readImage(child, bench.dir).config;
	assert.equal(config.OnBuild, undefined);
	const out = bench.path("onbuild");
	await bench.build([...base, "--build-arg", "WHO=me", "-o", out, context]);
	assert.equal(read(out, "both"), "f\nme\n");
});

test("http sources with logins of their host, a checksum, and none where none is asked for", async () => {
	const { hostname: host } = new URL(web.url);
	const context = bench.context({
		Dockerfile: `FROM debian:bookworm AS b
ADD --chown=games --checksum=${sha256("from /open")} ${web.url}/open /got/
ADD ${web.url}/token /got/
FROM scratch
COPY --from=b /got /
`,
		header: `FROM scratch\nADD ${web.url}/header /\n`,
	});
	const out = bench.path("http");
	await bench.build([...debian, "--secret", `id=HTTP_AUTH_TOKEN_${host},env=LOGIN`, "-o", out, context], {
		env: { LOGIN: "t0ken" },
	});
	assert.deepEqual(filesBelow(out), ["open", "token"]);
	const header = [
		`--secret`,
		`id=HTTP_AUTH_HEADER_${host},env=LOGIN`,
		"-f",
		join(context, "header"),
		context,
	];
	await bench.build(["-o", bench.path("header"), ...header], { env: { LOGIN: "Custom h3ader" } });
	assert.deepEqual(filesBelow(bench.path("header")), ["header"]);
	const refused = await bench.run(["--no-cache", ...header], { env: { LOGIN: "wr0ng" } });
	assert.match(refused.stderr, /invalid response status 401/);
	assert.doesNotMatch(refused.stderr, /wr0ng/);
});

test("git sources with submodules: as main context, as named context, in ADD, with and without them", async () => {
	const inner = repositories.create("inner");
	const module = inner.commit({ "inside.txt": "inside" });
	const outer = repositories.create("outer");
	const { url } = await repositories.serve();
	outer.commit({
		Dockerfile: `FROM debian:bookworm AS b
COPY . /main
COPY --from=named . /named
ADD ${url}/outer.git /added
ADD ${url}/outer.git?submodules=false /without
ADD --keep-git-dir ${url}/outer.git?branch=main /git
FROM scratch
COPY --from=b --parents /main /named /added /without /git/.git/HEAD /git/module/ /
`,
		".gitmodules": `[submodule "module"]\n\tpath = module\n\turl = ${url}/inner.git\n`,
		module: `submodule:${module}`,
		"top.txt": "top",
	});
	const out = bench.path("submodules");
	const named = ["--build-context", `named=${url}/outer.git`];
	await bench.build([...debian, ...named, "-o", out, `${url}/outer.git`]);
	const files = filesBelow(out).filter((path) => path.endsWith(".txt") || path.endsWith("HEAD"));
	assert.deepEqual(files, [
		"added/module/inside.txt",
		"added/top.txt",
		"git/.git/HEAD",
		"git/module/inside.txt",
		"main/module/inside.txt",
		"main/top.txt",
		"named/module/inside.txt",
		"named/top.txt",
		"without/top.txt",
	]);
});
