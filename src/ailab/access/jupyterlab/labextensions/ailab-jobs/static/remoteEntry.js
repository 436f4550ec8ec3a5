/* "Run as a job" in JupyterLab. There is no build: this is by hand what a bundler would make of it, a container of
   webpack's module federation (https://webpack.js.org/concepts/module-federation/#dynamic-remote-containers), whose
   `init` is given JupyterLab's own modules and whose `get` gives the plugin. */
(() => {
  'use strict';

  const NAME = 'ailab-jobs';
  const COMMAND = 'ailab:run-as-job';
  const PORTAL = '/services/ailab/';
  const TRIES = 4;
  const PAUSE = 500;
  const CHINESE = {
    'Run as a job…': '作为作业运行…',
    'Run this notebook as a job: it goes on when you leave.': '将此笔记本作为作业运行：您离开后它仍会继续。',
    'Run as a job': '作为作业运行',
    'Jobs of the lab': '实验室作业',
    Notebook: '笔记本',
    'Parameters, one a line: epochs = 10': '参数，每行一个：epochs = 10',
    GPUs: 'GPU 数量',
    Run: '运行',
    Cancel: '取消',
    'Job {job} is queued. Its executed copy: {output}': '作业 {job} 已排队。执行后的副本：{output}',
    'Show it': '查看',
    'A parameter is written NAME = VALUE, not: {line}': '参数应写成 NAME = VALUE，而不是：{line}',
    'The lab does not answer.': '实验室没有响应。'
  };

  let shared = {};

  /* A module that JupyterLab has. Of several versions the one in use, which is the one that has been loaded. */
  const use = async name => {
    const versions = Object.values(shared[name] || {});
    if (!versions.length) {
      throw new Error(`${NAME}: this JupyterLab shares no ${name}`);
    }
    return (await (versions.find(one => one.loaded) || versions[0]).get())();
  };

  /* The words of the command line for lines NAME = VALUE. What stands in quotes is text, whatever it looks like. */
  const wordsOf = (text, say) =>
    text
      .split('\n')
      .filter(line => line.trim())
      .flatMap(line => {
        const [, name, value] = line.match(/^\s*([^\s=]+)\s*=\s*(.*?)\s*$/) || [];
        if (!name) {
          throw new Error(say('A parameter is written NAME = VALUE, not: {line}', { line: line.trim() }));
        }
        const quoted = value.match(/^(["'])(.*)\1$/);
        return quoted ? ['-r', name, quoted[2]] : ['-p', name, value];
      });

  const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

  /* Make sure of a login at the lab's portal. Where this browser has none there, a visit makes one: the hub, which it is
     logged in to, confirms it without a question. This is asked again where the portal does not answer. */
  const logIn = async () => {
    for (let left = TRIES; left; left--) {
      const { ok, status } = await fetch(`${PORTAL}api/events?limit=1`, { headers: { Accept: 'application/json' } });
      if (ok) {
        return;
      }
      if (status === 401) {
        // Its answer is not read, and what is asked for so needs none of the hub's tokens (JupyterHub's _xsrf_utils.py).
        await fetch(PORTAL, { mode: 'no-cors', headers: { Accept: 'text/html' } });
      } else {
        await pause(PAUSE);
      }
    }
  };

  // crypto.randomUUID is missing where the lab is reached without TLS.
  const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, '0')).join('');

  /* Post until the lab itself answers. An answer that was lost on the way, which the proxy tells as a 502 or 503 of its
     own, may have been to a job that is queued: the key in `request` says that it is the same that is asked for. */
  const post = async (request, say) => {
    let why = '';
    for (let left = TRIES; left; left--) {
      const answer = await fetch(`${PORTAL}api/notebook-jobs`, request).catch(() => null);
      const said = answer && (await answer.json().catch(() => null));
      if (said && (answer.ok || said.error)) {
        return said;
      }
      why = answer ? ` (HTTP ${answer.status})` : why;
      if (left > 1) {
        await pause(PAUSE);
      }
    }
    throw new Error(`${say('The lab does not answer.')}${why}`);
  };

  const submit = async (asked, say) => {
    await logIn();
    const request = {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
      body: JSON.stringify({ ...asked, key: newKey() })
    };
    const said = await post(request, say);
    if (said.error) {
      throw new Error(`${said.error.message} ${said.error.remedy || ''}`.trim());
    }
    return said;
  };

  const field = (label, input) => {
    const row = document.createElement('label');
    row.style.cssText = 'display: flex; flex-direction: column; gap: 4px; margin-bottom: 12px';
    row.append(label, input);
    return row;
  };

  /* What is asked, as a dialog's body: a widget with getValue(). */
  const makeForm = (Widget, say, path) => {
    const notebook = Object.assign(document.createElement('input'), { value: path, className: 'jp-mod-styled' });
    const parameters = Object.assign(document.createElement('textarea'), { rows: 5, className: 'jp-mod-styled' });
    const gpus = Object.assign(document.createElement('input'), { type: 'number', min: 0, value: 0, className: 'jp-mod-styled' });
    const form = new Widget();
    form.node.append(
      field(say('Notebook'), notebook),
      field(say('Parameters, one a line: epochs = 10'), parameters),
      field(say('GPUs'), gpus)
    );
    form.getValue = () => ({ path: notebook.value.trim(), parameters: parameters.value, gpus: Math.max(0, Math.trunc(gpus.value)) || 0 });
    return form;
  };

  const makePlugin = async () => {
    const [apputils, launcher, mainmenu, notebook, translation, ui, widgets] = await Promise.all(
      [
        '@jupyterlab/apputils',
        '@jupyterlab/launcher',
        '@jupyterlab/mainmenu',
        '@jupyterlab/notebook',
        '@jupyterlab/translation',
        '@jupyterlab/ui-components',
        '@lumino/widgets'
      ].map(use)
    );

    const activate = (app, tracker, palette, starter, menu, translator) => {
      const say = (sentence, values = {}) => {
        const language = (translator && translator.languageCode) || '';
        const said = (language.startsWith('zh') && CHINESE[sentence]) || sentence;
        return said.replace(/\{(\w+)\}/g, (_match, name) => values[name]);
      };

      const ask = async () => {
        const current = tracker.currentWidget;
        const answer = await apputils.showDialog({
          title: say('Run as a job'),
          body: makeForm(widgets.Widget, say, current ? current.context.path : ''),
          buttons: [
            apputils.Dialog.cancelButton({ label: say('Cancel') }),
            apputils.Dialog.okButton({ label: say('Run') })
          ],
          focusNodeSelector: 'textarea'
        });
        return answer.button.accept ? answer.value : null;
      };

      const run = async () => {
        const asked = await ask();
        if (!asked) {
          return;
        }
        try {
          const words = wordsOf(asked.parameters, say);
          // What is run is the file, so it has to be what is seen.
          const open = tracker.find(panel => panel.context.path === asked.path);
          if (open && open.context.model.dirty) {
            await open.context.save();
          }
          const made = await submit({ path: asked.path, words, gpus: asked.gpus }, say);
          apputils.Notification.success(say('Job {job} is queued. Its executed copy: {output}', made), {
            autoClose: 15000,
            actions: [{ label: say('Show it'), callback: () => window.open(`${PORTAL}jobs/${made.job}`) }]
          });
        } catch (error) {
          apputils.Notification.error(error.message, { autoClose: false });
        }
      };

      app.commands.addCommand(COMMAND, {
        label: args => say(args.isLauncher ? 'Run as a job' : 'Run as a job…'),
        caption: () => say('Run this notebook as a job: it goes on when you leave.'),
        icon: args => (args.isPalette ? undefined : ui.runIcon),
        execute: run
      });
      if (palette) {
        palette.addItem({ command: COMMAND, category: say('Jobs of the lab'), args: { isPalette: true } });
      }
      if (menu) {
        menu.fileMenu.addGroup([{ command: COMMAND }], 60);
      }
      if (starter) {
        // Among the terminal and its like, under JupyterLab's own word for them.
        const category = translator ? translator.load('jupyterlab').__('Other') : 'Other';
        starter.add({ command: COMMAND, category, args: { isLauncher: true } });
      }
    };

    return {
      id: `${NAME}:run`,
      description: 'Runs a notebook as a job of the lab.',
      autoStart: true,
      requires: [notebook.INotebookTracker],
      optional: [apputils.ICommandPalette, launcher.ILauncher, mainmenu.IMainMenu, translation.ITranslator],
      activate
    };
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: scope => {
      shared = scope;
    },
    get: async module => {
      if (module !== './extension') {
        throw new Error(`${NAME} has no ${module}`);
      }
      const plugin = await makePlugin();
      return () => ({ __esModule: true, default: plugin });
    }
  };
})();
