/* Puts into a notebook what its cells have put out while its page was closed, which the server has kept
   (ailab.access.kept_outputs), and follows those that still run. By hand what a bundler would make of it; see ailab-jobs. */
(() => {
  'use strict';

  const NAME = 'ailab-kept-outputs';
  const EVERY = 1500;

  let shared = {};

  const use = async name => {
    const versions = Object.values(shared[name] || {});
    if (!versions.length) {
      throw new Error(`${NAME}: this JupyterLab shares no ${name}`);
    }
    return (await (versions.find(one => one.loaded) || versions[0]).get())();
  };

  const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

  const makePlugin = async () => {
    const [{ ServerConnection }, { URLExt }, { INotebookTracker }] = await Promise.all(
      ['@jupyterlab/services', '@jupyterlab/coreutils', '@jupyterlab/notebook'].map(use)
    );

    const request = (kernel, method, query = '') => {
      const settings = ServerConnection.makeSettings();
      const address = URLExt.join(settings.baseUrl, 'ailab/kept', kernel.id);
      return ServerConnection.makeRequest(`${address}?no_track_activity=1${query}`, { method }, settings);
    };

    /* The cell that was run: by its id, which files of older formats do not keep, else by its text. One that was never
       saved is added. */
    const cellOf = (panel, { cell, code }) => {
      const cells = panel.content.widgets.filter(one => one.model.type === 'code');
      const found = cells.find(one => one.model.id === cell) || cells.find(one => one.model.sharedModel.source === code);
      if (!found) {
        panel.content.model.sharedModel.addCell({ cell_type: 'code', source: code, metadata: {} });
      }
      return found || panel.content.widgets[panel.content.widgets.length - 1];
    };

    const show = (panel, execution) => {
      const cell = cellOf(panel, execution);
      const text = JSON.stringify(execution.outputs);
      if (JSON.stringify(cell.model.outputs.toJSON()) !== text) {
        cell.model.outputs.fromJSON(execution.outputs);
      }
      if (execution.done) {
        cell.model.executionCount = execution.count;
        cell.model.executionState = 'idle';
      } else {
        cell.model.executionState = 'running';
      }
    };

    /* Until nothing that this page has not asked for itself runs any more. */
    const restore = async panel => {
      for (let waits = true; waits && !panel.isDisposed; ) {
        waits = false;
        const kernel = panel.sessionContext.session && panel.sessionContext.session.kernel;
        const answer = kernel && (await request(kernel, 'GET').catch(() => null));
        if (!answer || !answer.ok) {
          return;
        }
        const kept = Object.entries(await answer.json());
        // What this page has asked for, before its connection was lost for a while, comes to it by itself.
        const others = kept.filter(([, execution]) => execution.page !== kernel.clientId);
        others.forEach(([, execution]) => show(panel, execution));
        if (others.some(([, execution]) => execution.done)) {
          await panel.context.save();
        }
        for (const [id, execution] of kept) {
          if (execution.done) {
            await request(kernel, 'DELETE', `&request=${encodeURIComponent(id)}`).catch(() => null);
          }
        }
        if (others.some(([, execution]) => !execution.done)) {
          waits = true;
          await pause(EVERY);
        }
      }
    };

    const watch = async panel => {
      await Promise.all([panel.context.ready, panel.sessionContext.ready, panel.revealed]);
      restore(panel).catch(error => console.error(`${NAME}:`, error));
    };

    const activate = (_app, tracker) => {
      tracker.forEach(watch);
      tracker.widgetAdded.connect((_sender, panel) => void watch(panel));
    };

    return {
      id: `${NAME}:restore`,
      description: 'Shows what cells have put out while the page was closed.',
      autoStart: true,
      requires: [INotebookTracker],
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
