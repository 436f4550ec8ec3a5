// Loaded into the proxy before its own program (node --require): what a request says about its own origin reaches
// nothing behind the proxy. Each request carries one X-Forwarded-For, -Proto, -Host and -Port, all of them ours, so the
// proxy itself runs with --no-x-forward. The word of a front proxy counts where AILAB_TRUSTED_PROXIES lists its address.
"use strict";
const http = require("node:http");
const https = require("node:https");
const net = require("node:net");

const ORIGIN = /^(x-forwarded-.*|forwarded|x-real-ip|x-scheme|x-client-ip|true-client-ip|x-cluster-client-ip)$/;
const PORTAL = "/services/ailab/";

const trusted = new net.BlockList();
for (const network of (process.env.AILAB_TRUSTED_PROXIES || "").split(",").filter(Boolean)) {
  const [address, bits] = network.split("/");
  trusted.addSubnet(address, Number(bits), family(address));
}

function family(address) {
  return net.isIPv6(address) ? "ipv6" : "ipv4";
}

function isTrusted(address) {
  return net.isIP(address) !== 0 && trusted.check(address, family(address));
}

function listed(headers, name) {
  return (headers[name] || "").split(",").map((word) => word.trim()).filter(Boolean);
}

// The nearest address that is no trusted proxy: proxies append, so the list is read from its end.
function clientOf(request) {
  const chain = listed(request.headers, "x-forwarded-for");
  let address = (request.socket.remoteAddress || "").replace(/^::ffff:/, "");
  while (isTrusted(address) && chain.length && net.isIP(chain.at(-1))) address = chain.pop();
  return address;
}

function schemeOf(request, peer) {
  const told = listed(request.headers, "x-forwarded-proto").at(-1);
  if (isTrusted(peer) && (told === "http" || told === "https")) return told;
  return request.socket.encrypted ? "https" : "http";
}

function setOrigin(request) {
  const peer = (request.socket.remoteAddress || "").replace(/^::ffff:/, "");
  const client = clientOf(request);
  const scheme = schemeOf(request, peer);
  for (const name of Object.keys(request.headers)) {
    if (ORIGIN.test(name.replaceAll("_", "-"))) delete request.headers[name];
  }
  const host = request.headers.host || "";
  request.headers["x-forwarded-for"] = client;
  request.headers["x-forwarded-proto"] = scheme;
  request.headers["x-forwarded-host"] = host;
  request.headers["x-forwarded-port"] = /:(\d+)$/.exec(host)?.[1] || (scheme === "https" ? "443" : "80");
}

// configurable-http-proxy answers 500 to a path that does not decode. What is behind it has a page for that.
function replaceMalformedPath(request) {
  try {
    decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  } catch {
    request.url = (request.url.startsWith(PORTAL) ? PORTAL : "/hub/") + "malformed-address";
  }
}

for (const kind of [http.Server, https.Server]) {
  const emit = kind.prototype.emit;
  kind.prototype.emit = function (event, request, ...rest) {
    // The server of the proxy's own API listens on a unix socket, whose address is its path.
    if ((event === "request" || event === "upgrade") && typeof this.address() !== "string") {
      setOrigin(request);
      replaceMalformedPath(request);
    }
    return emit.call(this, event, request, ...rest);
  };
}

// Node ends a request that a body was piped into by an empty write (OutgoingMessage.end, "force a flush"). A server that
// has answered and closed by then makes that write fail, its answer is dropped, and the proxy says 503 instead.
const write = net.Socket.prototype._write;
net.Socket.prototype._write = function (data, encoding, done) {
  if (data.length === 0) done();
  else write.call(this, data, encoding, done);
};
