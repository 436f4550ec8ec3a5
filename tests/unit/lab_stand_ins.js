/* `node lab_stand_ins.js EXTENSION SCENE`: loads our extension as JupyterLab does, among stand-ins of its modules, and
   runs its command. SCENE is JSON: `answer` (what the dialog gives, null: cancelled), `portal` (the answers of the
   portal, in their order), `language`. Prints what has happened as JSON. */
'use strict';
const fs = require('node:fs');

const scene = JSON.parse(process.argv[3]);
const seen = { places: [], posted: [], asked: [], success: [], error: [], saved: 0 };

global.window = {};
global.document = {
  createElement: () => ({ style: {}, children: [], append(...more) { this.children.push(...more); } })
};
global.fetch = async (_address, options) => {
  seen.asked.push(options.method || 'GET');
  if (options.body) {
    seen.posted.push(JSON.parse(options.body));
  }
  const { status, body } = scene.portal.shift();
  return { status, ok: status < 400, json: async () => body || JSON.parse('no JSON') };
};

class Widget {
  node = document.createElement('div');
}
const modules = {
  '@jupyterlab/apputils': {
    ICommandPalette: 'palette',
    Dialog: { cancelButton: given => given, okButton: given => given },
    showDialog: async ({ body }) => {
      seen.form = body.getValue();
      return { button: { accept: scene.answer !== null }, value: scene.answer };
    },
    Notification: {
      success: text => seen.success.push(text),
      error: text => seen.error.push(text)
    }
  },
  '@jupyterlab/launcher': { ILauncher: 'launcher' },
  '@jupyterlab/mainmenu': { IMainMenu: 'menu' },
  '@jupyterlab/notebook': { INotebookTracker: 'tracker' },
  '@jupyterlab/translation': { ITranslator: 'translator' },
  '@jupyterlab/ui-components': { runIcon: 'icon' },
  '@lumino/widgets': { Widget }
};
// Another extension's own copy of a module, which nothing uses, stands first.
const scope = Object.fromEntries(
  Object.entries(modules).map(([name, module]) => [
    name,
    { '0.0.1': { get: async () => () => ({}) }, '9.9.9': { loaded: 1, get: async () => () => module } }
  ])
);

const panel = {
  context: { path: 'notebooks/open.ipynb', model: { dirty: true }, save: async () => { seen.saved += 1; } }
};
const services = {
  tracker: { currentWidget: panel, find: matches => [panel].find(matches) },
  palette: { addItem: () => seen.places.push('palette') },
  menu: { fileMenu: { addGroup: () => seen.places.push('menu') } },
  launcher: { add: () => seen.places.push('launcher') },
  translator: { languageCode: scene.language || 'en', load: () => ({ __: text => text }) }
};

(async () => {
  (0, eval)(fs.readFileSync(process.argv[2], 'utf8'));
  const container = window._JUPYTERLAB['ailab-jobs'];
  await container.init(scope);
  const { default: plugin } = (await container.get('./extension'))();
  let command;
  const app = { commands: { addCommand: (_id, options) => { command = options; } } };
  const wanted = [...plugin.requires, ...plugin.optional];
  plugin.activate(app, ...wanted.map(token => services[token]));
  seen.label = command.label({});
  await command.execute({});
  console.log(JSON.stringify(seen));
})();
