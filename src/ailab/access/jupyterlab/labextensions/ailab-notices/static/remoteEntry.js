/* Shows in JupyterLab what the lab has to say of one's workspace, as that its GPU is about to go to a job. By hand what a
   bundler would make of it; see ailab-jobs. */
(() => {
  'use strict';

  const NAME = 'ailab-notices';
  const PORTAL = '/services/ailab/';
  const EVERY = 60000;

  let shared = {};

  const use = async name => {
    const versions = Object.values(shared[name] || {});
    if (!versions.length) {
      throw new Error(`${NAME}: this JupyterLab shares no ${name}`);
    }
    return (await (versions.find(one => one.loaded) || versions[0]).get())();
  };

  /* Empty where there is nothing to say, or nobody to ask: the next turn asks again. */
  const ask = async () => {
    const answer = await fetch(`${PORTAL}api/workspace`, { headers: { Accept: 'application/json' } }).catch(() => null);
    if (answer && answer.status === 401) {
      // A visit makes a login of the one at the hub.
      await fetch(PORTAL, { mode: 'no-cors', headers: { Accept: 'text/html' } }).catch(() => null);
    }
    return answer && answer.ok ? (await answer.json()).note : null;
  };

  const makePlugin = async () => {
    const { Notification } = await use('@jupyterlab/apputils');

    const activate = () => {
      let shown = '';
      let id = null;
      const look = async () => {
        const note = document.hidden ? null : await ask();
        if (note === null || note === shown) {
          return;
        }
        if (id) {
          Notification.dismiss(id);
        }
        shown = note;
        id = note ? Notification.warning(note, { autoClose: false }) : null;
      };
      setInterval(look, EVERY);
      document.addEventListener('visibilitychange', look);
      look();
    };

    return { id: `${NAME}:show`, description: 'Shows notices of the lab.', autoStart: true, activate };
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
